"""Causal DiT: dense causal diffusion, trained on a clean history (teacher forcing). SCD's closest baseline.

Its one pass over each clean frame, which fills the cache, is also where the heads read state, reward and
success: so they are known before a pixel is drawn, as SCD has it, and at no further cost.

B batch, T steps, C H W frame, M tokens per frame, D width, S state, A action.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scd_world.baselines.dense import DenseTransformer
from scd_world.model.config import ModelConfig
from scd_world.model.flow import FirstFrame, euler_sample, to_velocity
from scd_world.model.heads import LowDimHeads
from scd_world.model.kv_cache import RingKVCache
from scd_world.model.noise import Noise
from scd_world.model.pixel_heads import make_pixel_head
from scd_world.model.prior import StatePrior
from scd_world.model.world_model import Core, Encoded
from scd_world.robot_data.normalizer import Normalizer
from scd_world.robot_data.schema import DataSchema


class CausalDiT(Core):
    """As many layers as SCD's encoder and decoder have together."""

    def __init__(
        self, config: ModelConfig, schema: DataSchema, normalizer: Normalizer, prior: StatePrior
    ) -> None:
        super().__init__(config, schema)
        S, A = len(schema.state), len(schema.action)
        self.net = self.make_net(
            state_action=S + A,
            delta_features=prior.num_features,
            tasks=self.num_tasks,
            width=config.width,
            heads=config.heads,
            layers=config.encoder_layers + config.decoder_layers,
            window=config.window,
            octaves=config.fourier_octaves,
            pixel_head=make_pixel_head(config, self.patches, normalizer.background, prior.has_renderer),
        )
        self.norm = nn.LayerNorm(config.width)
        self.heads = LowDimHeads(config.width, S)

    def make_net(self, **settings: Any) -> DenseTransformer:
        return DenseTransformer(self.patches, **settings)

    # ---- learning --------------------------------------------------------------------------------------

    def encode_clip(self, obs: Tensor, state_action: Tensor, delta_features: Tensor, noise: Noise) -> Encoded:
        """One pass over the history; memory: the keys and values of all its layers."""
        h, memory = self.net.read(*self.show_history(obs, noise), state_action, delta_features)
        return Encoded(self.norm(h), memory)

    def denoise_clip(
        self, x_t: Tensor, t: Tensor, encoded: Encoded, state_action: Tensor, pixel_inputs: Tensor
    ) -> Tensor:
        """Each noisy next frame behind its own past."""
        return self.net.denoise_clip(x_t, t, state_action, pixel_inputs, encoded.memory)

    def show_history(self, obs: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Gives the frames (B, T, C, H, W) as they are shown in training, and their noise levels (B, T)."""
        return obs, obs.new_zeros(obs.shape[:2])

    # ---- stepping --------------------------------------------------------------------------------------

    def empty_cache(self, rows: int, device: torch.device) -> RingKVCache:
        """`window` frames, and room for the one that is drawn."""
        c, layers = self.config, len(self.net.blocks)
        return RingKVCache(layers, rows, c.heads, c.window + 1, self.num_tokens, c.width // c.heads, device)

    def encode_step(
        self, obs: Tensor, state_action: Tensor, delta_features: Tensor, cache: RingKVCache
    ) -> Encoded:
        h = self.net.write(*self.remembered(obs), state_action, delta_features, cache)
        return Encoded(self.norm(h), cache)

    def remembered(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Gives a frame (B, C, H, W) as it enters the cache, and its noise level (B,)."""
        return obs, obs.new_zeros(len(obs))

    def render(
        self,
        encoded: Encoded,
        state_action: Tensor,
        pixel_inputs: Tensor,
        noise: Tensor,
        num_steps: int,
        first: FirstFrame | None = None,
    ) -> Tensor:
        """All layers, at each of the denoising steps."""
        now, predict = self.net.now(encoded.memory), self.config.predict

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            return to_velocity(predict, self.net.denoise(x, t, state_action, pixel_inputs, now), x, t)

        return euler_sample(velocity, noise, num_steps, self.config.t_shift, first)
