"""Causal DiT: dense causal diffusion, taught on a clean history (teacher forcing). SCD's rival.

Its one pass over each clean frame, which fills the cache, is also where the heads read state, reward and
success: so they are known before a pixel is drawn, as SCD has it, and at no further cost.

B batch, T steps, C H W frame, M tokens per frame, D width, S state, A action.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scd_world.baselines.dense import Dense
from scd_world.model.config import ModelConfig
from scd_world.model.flow import sample, velocity
from scd_world.model.heads import Heads
from scd_world.model.kv_cache import RingCache
from scd_world.model.noise import Noise
from scd_world.model.world_model import BaseModel, Predicted
from scd_world.prior.dynamics import Body
from scd_world.robot_data.clip import Clip
from scd_world.robot_data.normalizer import Stats
from scd_world.robot_data.schema import DataSchema


class CausalDiT(BaseModel):
    """As many layers as SCD's encoder and decoder have together."""

    def __init__(self, config: ModelConfig, schema: DataSchema, stats: Stats) -> None:
        super().__init__(config, schema, stats)
        S, A = len(schema.state), len(schema.action)
        self.net = self.make_net(
            vector=S + A,
            rates=2 * S + self.num_tasks,
            tasks=self.num_tasks,
            width=config.width,
            heads=config.heads,
            layers=config.encoder_layers + config.decoder_layers,
            window=config.window,
            octaves=config.octaves,
            head=self.render_head(stats),
        )
        self.norm = nn.LayerNorm(config.width)
        self.heads = Heads(config.width, S)

    def make_net(self, **settings) -> Dense:
        return Dense(self.patches, **settings)

    # ---- learning --------------------------------------------------------------------------------------

    def predict(self, clip: Clip, noise: Noise, obs: Tensor, state: Tensor, body: Body.Output) -> Predicted:
        """One pass over the history, then K noisy versions of each next frame, each behind its own past."""
        vector = torch.cat([state, clip.act], dim=-1)
        h, memory = self.net.read(*self.show_history(obs, noise), vector, self.told(body.features, clip.task))
        heads, next_state = self.read(self.said(h), body)
        x_t, t = self.noisy_frames(clip, noise)
        state = next_state.detach()
        vector = self.told(torch.cat([state, clip.act], dim=-1), clip.task)
        out = self.net.draw_all(x_t, t, vector, self.seen(obs, state), memory)
        return Predicted(self.pixel_error(clip, noise, out, t), heads, next_state)

    def show_history(self, obs: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """The frames (B, T, C, H, W) as they are shown in training, and their noise levels (B, T)."""
        return obs, obs.new_zeros(obs.shape[:2])

    # ---- stepping --------------------------------------------------------------------------------------

    def empty_cache(self, rows: int, device: torch.device) -> RingCache:
        """`window` frames, and room for the one that is drawn."""
        c, layers = self.config, len(self.net.blocks)
        return RingCache(layers, rows, c.heads, c.window + 1, self.num_tokens, c.width // c.heads, device)

    def write(self, obs: Tensor, vector: Tensor, rates: Tensor, cache: RingCache) -> Tensor:
        return self.net.write(*self.remembered(obs), vector, rates, cache)

    def remembered(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """A frame (B, C, H, W) as it enters the cache, and its noise level (B,)."""
        return obs, obs.new_zeros(len(obs))

    def said(self, h: Tensor) -> Tensor:
        return self.norm(h)

    def render(
        self, h: Tensor, cache: RingCache, vector: Tensor, seen: Tensor, noise: Tensor, num_steps: int
    ) -> Tensor:
        """All layers, at each of the denoising steps."""
        now, predict = self.net.now(cache), self.config.predict
        return sample(
            lambda x, t: velocity(predict, self.net.draw(x, t, vector, seen, now), x, t), noise, num_steps
        )
