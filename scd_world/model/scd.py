"""Separable Causal Diffusion: a causal encoder reads the past once, a frame-wise decoder draws the next
frame.

    c_i = E(x_≤i, a_≤i)            once per frame, with a KV cache                (paper, eq. 4)
    v   = D([c_i ; x^t_{i+1}], t)  at each denoising step, of this frame alone    (paper, eq. 5)

in the alignment of gymnasium and LeRobot: the action a_i is taken at frame i and leads to frame i + 1.
("Causality in Video Diffusers is Separable from Denoising", arXiv 2602.10095.)

B batch, T steps, K noise draws, C H W frame, M context tokens, D width, S state, A action.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scd_world.model.config import ModelConfig
from scd_world.model.decoder import Decoder
from scd_world.model.encoder import Encoder
from scd_world.model.flow import FirstFrame, VelocityField, euler_sample_interval, to_velocity
from scd_world.model.heads import LowDimHeads
from scd_world.model.kv_cache import RingKVCache
from scd_world.model.noise import Noise, NoiseSampler
from scd_world.model.pixel_heads import make_pixel_head
from scd_world.model.prior import StatePrior
from scd_world.model.world_model import Core, Encoded
from scd_world.robot_data.clip import Clip
from scd_world.robot_data.normalizer import Normalizer
from scd_world.robot_data.schema import DataSchema


class SCD(Core):
    ctx_perturbation: Tensor

    def __init__(
        self, config: ModelConfig, schema: DataSchema, normalizer: Normalizer, prior: StatePrior
    ) -> None:
        """prior: its features go into the encoder; its drawing of the next state, where it has a renderer,
        stands beside the last frame in what the pixel head sees. The core keeps neither."""
        super().__init__(config, schema)
        S, A = len(schema.state), len(schema.action)
        shared = {
            "width": config.width,
            "heads": config.heads,
            "octaves": config.fourier_octaves,
            "tasks": self.num_tasks,
        }
        self.encoder = Encoder(
            self.patches,
            state_action=S + A,
            delta_features=prior.num_features,
            layers=config.encoder_layers,
            window=config.window,
            masked_action_dims=A if config.action_in == "decoder" else 0,
            **shared,
        )
        self.decoder = Decoder(
            self.patches,
            state_action=S + A,
            layers=config.decoder_layers,
            fusion=config.fusion,
            add_context=config.add_context,
            interval=config.average_velocity,
            pixel_head=make_pixel_head(config, self.patches, normalizer.background, prior.has_renderer),
            masked_action_dims=A if config.action_in == "encoder" else 0,
            **shared,
        )
        self.ctx_norm = nn.LayerNorm(config.width, elementwise_affine=False, eps=1e-6)
        self.ctx_scale = nn.Parameter(torch.ones(config.width))
        self.ctx_shift = nn.Parameter(torch.zeros(config.width))
        self.heads = LowDimHeads(config.width, S)
        # Guidance needs a worse context; one fixed draw serves every frame and keeps a step deterministic.
        fixed = torch.randn(self.num_tokens, config.width, generator=torch.Generator().manual_seed(0))
        self.register_buffer("ctx_perturbation", fixed, persistent=False)

    # ---- the encoder, eq. 4 ----------------------------------------------------------------------------

    def encode(self, obs: Tensor, state_action: Tensor, delta_features: Tensor) -> Tensor:
        """Encodes all frames of a clip in one causal pass: h (B, T, M, D)."""
        return self.encoder(obs, state_action, delta_features)

    def encode_step(
        self, obs: Tensor, state_action: Tensor, delta_features: Tensor, cache: RingKVCache
    ) -> Encoded:
        """Encodes one more frame into the cache: the same as `encode` over the whole past."""
        h = self.encoder.step(obs, state_action, delta_features, cache)
        return Encoded(self.perturb_context(h, 0.0), h)

    def perturb_context(self, h: Tensor, perturbation: Tensor | float) -> Tensor:
        """ctx = affine(LN(h) + η·ζ): the noise sits where the variance is one, or η would have no scale."""
        return (self.ctx_norm(h) + perturbation) * self.ctx_scale + self.ctx_shift

    # ---- the decoder, eq. 5 ----------------------------------------------------------------------------

    def velocity(self, h: Tensor, state_action: Tensor, pixel_inputs: Tensor) -> VelocityField:
        """Gives v = D([c ; x_t], t) of the frame after h (F, M, D), guided where guidance g is not 1:

        v = v(ctx_noisy) + g · (v(ctx) − v(ctx_noisy)).
        """
        return self.guided_velocity(self.perturb_context(h, 0.0), h, state_action, pixel_inputs)

    def guided_velocity(
        self, ctx: Tensor, h: Tensor, state_action: Tensor, pixel_inputs: Tensor
    ) -> VelocityField:
        g = self.config.guidance
        near = self.unguided_velocity(ctx, state_action, pixel_inputs)
        if g == 1:
            return near
        noisy = self.perturb_context(h, self.config.ctx_noise * self.ctx_perturbation)
        away = self.unguided_velocity(noisy, state_action, pixel_inputs)

        def guided(x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
            v = away(x_t, t, s)
            return v + g * (near(x_t, t, s) - v)

        return guided

    def unguided_velocity(self, ctx: Tensor, state_action: Tensor, pixel_inputs: Tensor) -> VelocityField:
        """Gives v = noise − x of a context, in float32, whatever the decoder's output means."""
        prepared = self.decoder.prepare(ctx, state_action)

        def field(x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
            out = self.decoder.denoise(x_t, t, prepared, pixel_inputs, s)
            return to_velocity(self.config.predict, out, x_t, t)

        return field

    def render(
        self,
        encoded: Encoded,
        state_action: Tensor,
        pixel_inputs: Tensor,
        noise: Tensor,
        num_steps: int,
        first: FirstFrame | None = None,
    ) -> Tensor:
        """Draws x from p(x | ctx): Euler steps of the decoder's velocity."""
        field = self.guided_velocity(encoded.tokens, encoded.memory, state_action, pixel_inputs)
        return euler_sample_interval(field, noise, num_steps, self.config.t_shift, first)

    # ---- learning (§3.2): one encoder pass, K noisy versions of each next frame ------------------------

    def extra_noise(self, clip: Clip, sampler: NoiseSampler) -> Mapping[str, Tensor]:
        return {"ctx": sampler.normal(*clip.action.shape[:2], self.num_tokens, self.config.width)}

    def encode_clip(self, obs: Tensor, state_action: Tensor, delta_features: Tensor, noise: Noise) -> Encoded:
        assert noise.ctx is not None
        h = self.encode(obs, state_action, delta_features)
        return Encoded(self.perturb_context(h, self.config.ctx_noise * noise.ctx), None)

    def denoise_clip(
        self, x_t: Tensor, t: Tensor, encoded: Encoded, state_action: Tensor, pixel_inputs: Tensor
    ) -> Tensor:
        K = len(t)
        pixel_inputs = pixel_inputs.expand(K, *pixel_inputs.shape).flatten(0, 2)
        # Frames go into the batch: the decoder must not learn to look across them.
        prepared = self.decoder.prepare(encoded.tokens.flatten(0, 1), state_action.flatten(0, 1)).repeat(K)
        return self.decoder.denoise(x_t.flatten(0, 2), t.flatten(), prepared, pixel_inputs)

    # ---- stepping --------------------------------------------------------------------------------------

    def empty_cache(self, rows: int, device: torch.device) -> RingKVCache:
        c = self.config
        return RingKVCache(
            c.encoder_layers, rows, c.heads, c.window, self.num_tokens, c.width // c.heads, device
        )
