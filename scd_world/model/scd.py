"""The SCD world model: one causal encoder, one frame-wise decoder.

An encoder pass reads (frame, state, action) once; off what it says the heads read state, reward and success
before a pixel is drawn; the decoder draws it. What it shares with its rivals is in `base_model.py`.

B batch, T steps, K noise draws, C H W frame, M context tokens, D width, S state, A action.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scd_world.model.config import ModelConfig
from scd_world.model.decoder import Decoder
from scd_world.model.encoder import Encoder
from scd_world.model.flow import Field, draw, velocity
from scd_world.model.heads import Heads
from scd_world.model.kv_cache import RingCache
from scd_world.model.noise import Draw, Noise
from scd_world.model.world_model import BaseModel, Predicted
from scd_world.prior.dynamics import Body
from scd_world.robot_data.clip import Clip
from scd_world.robot_data.normalizer import Stats
from scd_world.robot_data.schema import DataSchema


class WorldModel(BaseModel):
    def __init__(self, config: ModelConfig, schema: DataSchema, stats: Stats) -> None:
        super().__init__(config, schema, stats)
        S, A = len(schema.state), len(schema.action)
        shared = {"width": config.width, "heads": config.heads, "octaves": config.octaves, "vector": S + A}
        self.encoder = Encoder(
            self.patches,
            layers=config.encoder_layers,
            window=config.window,
            rates=2 * S + self.num_tasks,
            hidden=A if config.action_in == "decoder" else 0,
            **shared,
        )
        self.decoder = Decoder(
            self.patches,
            layers=config.decoder_layers,
            tasks=self.num_tasks,
            fusion=config.fusion,
            add_context=config.add_context,
            interval=config.interval,
            head=self.render_head(stats),
            hidden=A if config.action_in == "encoder" else 0,
            **shared,
        )
        self.ctx_norm = nn.LayerNorm(config.width, elementwise_affine=False, eps=1e-6)
        self.ctx_scale = nn.Parameter(torch.ones(config.width))
        self.ctx_shift = nn.Parameter(torch.zeros(config.width))
        self.heads = Heads(config.width, S)
        # Guidance needs a worse context; one fixed draw serves every frame and keeps a step deterministic.
        fixed = torch.randn(self.num_tokens, config.width, generator=torch.Generator().manual_seed(0))
        self.register_buffer("ctx_perturbation", fixed, persistent=False)

    # ---- learning --------------------------------------------------------------------------------------

    def draw_more(self, clip: Clip, draw: Draw) -> Mapping[str, Tensor]:
        return {"ctx": draw.normal(*clip.act.shape[:2], self.num_tokens, self.config.width)}

    def predict(self, clip: Clip, noise: Noise, obs: Tensor, state: Tensor, body: Body.Output) -> Predicted:
        """One encoder pass over the clip, K noisy versions of each next frame through the decoder (§3.2)."""
        h = self.encoder(obs, torch.cat([state, clip.act], dim=-1), self.told(body.features, clip.task))
        ctx = self.context(h, self.config.ctx_noise * noise.ctx)
        heads, next_state = self.read(ctx, body)
        state = next_state.detach()
        pixels = self.pixel_loss(clip, noise, self.seen(obs, state), ctx, state)
        return Predicted(pixels, heads, next_state)

    def context(self, h: Tensor, perturbation: Tensor | float) -> Tensor:
        """ctx = affine(LN(h) + η·ζ): the noise sits where the variance is one, or η would have no scale."""
        return (self.ctx_norm(h) + perturbation) * self.ctx_scale + self.ctx_shift

    def pixel_loss(self, clip: Clip, noise: Noise, seen: Tensor, ctx: Tensor, next_state: Tensor) -> Tensor:
        x_t, t = self.noisy_frames(clip, noise)
        K = len(t)
        vector = self.told(torch.cat([next_state, clip.act], dim=-1), clip.task)
        seen = seen.expand(K, *seen.shape).flatten(0, 2)
        # Frames go into the batch: the decoder must not learn to look across them.
        scene = self.decoder.scene(ctx.flatten(0, 1), vector.flatten(0, 1)).repeat(K)
        out = self.decoder.draw(x_t.flatten(0, 2), t.flatten(), scene, seen)
        return self.pixel_error(clip, noise, out, t)

    # ---- stepping --------------------------------------------------------------------------------------

    def empty_cache(self, rows: int, device: torch.device) -> RingCache:
        c = self.config
        return RingCache(
            c.encoder_layers, rows, c.heads, c.window, self.num_tokens, c.width // c.heads, device
        )

    def write(self, obs: Tensor, vector: Tensor, rates: Tensor, cache: RingCache) -> Tensor:
        return self.encoder.step(obs, vector, rates, cache)

    def said(self, h: Tensor) -> Tensor:
        return self.context(h, 0.0)

    def render(
        self, h: Tensor, cache: RingCache, vector: Tensor, seen: Tensor, noise: Tensor, num_steps: int
    ) -> Tensor:
        """Draws x from p(x | ctx): Euler steps of the decoder's velocity."""
        return draw(self.field(h, vector, seen), noise, num_steps)

    def field(self, h: Tensor, vector: Tensor, seen: Tensor) -> Field:
        """The velocity that draws the frame of this context, guided where guidance is not 1."""
        g = self.config.guidance
        near = self.field_of(self.context(h, 0.0), vector, seen)
        if g == 1:
            return near
        away = self.field_of(self.context(h, self.config.ctx_noise * self.ctx_perturbation), vector, seen)

        def guided(x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
            v = away(x_t, t, s)
            return v + g * (near(x_t, t, s) - v)

        return guided

    def field_of(self, ctx: Tensor, vector: Tensor, seen: Tensor) -> Field:
        """v = noise − x, in float32, whatever the decoder's output means."""
        scene = self.decoder.scene(ctx, vector)

        def field(x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
            return velocity(self.config.predict, self.decoder.draw(x_t, t, scene, seen, s), x_t, t)

        return field
