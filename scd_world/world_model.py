"""The SCD world model: four verbs, one causal encoder, one frame-wise decoder.

`loss` learns; `initial`, `observe` and `imagine` step. An encoder pass reads (frame, state, action) once;
off what it says the heads read state, reward and success before a pixel is drawn; the decoder draws it.

B batch, T steps, K noise draws, C H W frame, M context tokens, D width, S state, A action.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from scd_world.cache import RingCache
from scd_world.clip import Clip
from scd_world.decoder import Decoder
from scd_world.dynamics import LinearDynamics
from scd_world.encoder import Encoder
from scd_world.flow import interpolate, logit_normal, sample
from scd_world.heads import Heads
from scd_world.layers import Patches
from scd_world.model_config import ModelConfig
from scd_world.schema import DataSchema
from scd_world.stats import Stats


@dataclass(frozen=True)
class Noise:
    """Everything random that one loss needs; drawn by `WorldModel.draw_noise`."""

    t: Tensor  # (K, B, T) standard normal, becomes t
    x: Tensor  # (K, B, T, C, H, W)
    ctx: Tensor  # (B, T, M, D)
    state: Tensor  # (B, T, S)
    level: Tensor  # (B,) uniform, how noisy this clip's input frames are
    own: Tensor  # (B,) uniform, below own_history the clip's history is the model's own work
    obs: Tensor | None  # (B, T, C, H, W), None where frame_noise is 0

    def rows(self, rows: slice) -> Noise:
        """The noise of these rows of the batch."""
        parts = {name: getattr(self, name)[rows] for name in ("ctx", "state", "level", "own")}
        obs = None if self.obs is None else self.obs[rows]
        return Noise(t=self.t[:, rows], x=self.x[:, rows], obs=obs, **parts)

    def with_recorded_history(self) -> Noise:
        """No clip's past is the model's own work: losses of differently trained models can be compared."""
        return replace(self, own=torch.ones_like(self.own))


@dataclass(frozen=True)
class Imagined:
    """Where B imagined episodes stand. Stepping consumes it (the cache changes in place); `fork()` first."""

    obs: Tensor  # (B, C, H, W) in [-1, 1]
    state: Tensor  # (B, S) model units
    before: Tensor  # (B, S) the state one frame earlier; at an episode's first frame the same
    reward: Tensor  # (B,) model units, of the step that led here
    success: Tensor  # (B,) probability
    cache: RingCache
    steps: int  # the cache's count of steps when this was made

    PER_ROW = ("obs", "state", "before", "reward", "success")

    def fork(self) -> Imagined:
        """An independent copy: both can be stepped on."""
        self.check()
        tensors = {name: getattr(self, name).clone() for name in self.PER_ROW}
        return Imagined(**tensors, cache=self.cache.clone(), steps=self.steps)

    def select(self, rows: Tensor) -> Imagined:
        """A copy of these rows (r,) alone."""
        self.check()
        tensors = {name: getattr(self, name)[rows] for name in self.PER_ROW}
        return Imagined(**tensors, cache=self.cache.select(rows), steps=self.steps)

    def check(self) -> None:
        if self.steps != self.cache.steps:
            raise RuntimeError(
                f"this Imagined stood at step {self.steps} and was stepped on already (its cache is at step "
                f"{self.cache.steps}): keep the value that the last step returned, or fork() before stepping"
            )


class WorldModel(nn.Module):
    def __init__(self, config: ModelConfig, schema: DataSchema, stats: Stats) -> None:
        super().__init__()
        self.config, self.schema = config, schema
        S, A = len(schema.state), len(schema.action)
        patches = Patches(len(schema.cameras), schema.height, schema.width, config.patch)
        self.num_tokens = patches.count + 1
        self.dynamics = LinearDynamics(stats)
        shared = {"width": config.width, "heads": config.heads, "octaves": config.octaves, "vector": S + A}
        self.encoder = Encoder(
            patches, layers=config.encoder_layers, window=config.window, rates=2 * S, **shared
        )
        self.decoder = Decoder(
            patches,
            layers=config.decoder_layers,
            add_context=config.add_context,
            copy_last=config.copy_last,
            **shared,
        )
        self.ctx_norm = nn.LayerNorm(config.width, elementwise_affine=False, eps=1e-6)
        self.ctx_scale = nn.Parameter(torch.ones(config.width))
        self.ctx_shift = nn.Parameter(torch.zeros(config.width))
        self.heads = Heads(config.width, S)
        self.register_buffer("background", stats.background.clone(), persistent=False)
        # Guidance needs a worse context; one fixed draw serves every frame and keeps a step deterministic.
        fixed = torch.randn(self.num_tokens, config.width, generator=torch.Generator().manual_seed(0))
        self.register_buffer("ctx_perturbation", fixed, persistent=False)

    # ---- learning --------------------------------------------------------------------------------------

    def draw_noise(self, clip: Clip, generator: torch.Generator) -> Noise:
        """Fresh noise for `loss`, drawn on the generator's device, given on the clip's."""
        K, (B, T, *frame) = self.config.draws, (*clip.act.shape[:2], *clip.obs.shape[2:])

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=generator.device).to(clip.obs.device)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=generator.device).to(clip.obs.device)

        return Noise(
            t=normal(K, B, T),
            x=normal(K, B, T, *frame),
            ctx=normal(B, T, self.num_tokens, self.config.width),
            state=normal(B, T, clip.state.shape[-1]),
            level=uniform(B),
            own=uniform(B),
            obs=normal(B, T, *frame) if self.config.frame_noise else None,
        )

    def forward(self, clip: Clip, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss; under this name because distributed wrappers watch `forward`."""
        return self.loss(clip, noise)

    def loss(self, clip: Clip, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """Teacher forcing: one encoder pass over the clip, K noisy versions of each next frame (§3.2)."""
        obs, state = self.corrupt_history(clip, noise)
        if self.config.own_history:
            obs = self.imagine_history(clip, noise, obs, state)
        ctx, heads, next_state = self.look_ahead(obs, state, clip.act, self.config.ctx_noise * noise.ctx)
        losses = {"pixels": self.pixel_loss(clip, noise, obs, ctx, next_state.detach())}
        losses |= self.head_losses(clip, heads, next_state)
        weights = {"pixels": 1.0, "state": self.config.state_weight}
        weights |= {"reward": self.config.reward_weight, "success": self.config.success_weight}
        return sum(weights[name] * value for name, value in losses.items()), losses

    def look_ahead(
        self, obs: Tensor, state: Tensor, act: Tensor, perturbation: Tensor | float
    ) -> tuple[Tensor, Heads.Output, Tensor]:
        """The encoder over a clip: context (B, T, M, D), what the heads read off it, next state (B, T, S)."""
        straight = self.dynamics(before_each(state), state, act)
        h = self.encoder(obs, torch.cat([state, act], dim=-1), straight.features)
        ctx = self.context(h, perturbation)
        heads = self.heads(ctx[:, :, -1])
        return ctx, heads, straight.state + heads.rest * self.dynamics.rest

    @torch.no_grad()
    def imagine_history(self, clip: Clip, noise: Noise, obs: Tensor, state: Tensor) -> Tensor:
        """obs (B, T, C, H, W), in some clips each frame being what the model makes of the frames before it.

        Frames of its own kind are what it meets when stepping (exposure bias); here it learns to mend them.
        The recorded state stays: it says where things are, so that what is learnt is to redraw them there,
        and not to hedge. All frames at once, drawn in one denoising step (chain of forward, one hop).
        """
        ctx, _, next_state = self.look_ahead(obs, state, clip.act, 0.0)
        vector = torch.cat([next_state, clip.act], dim=-1).flatten(0, 1)
        # Another frame's noise, not what this one learns from; of the same row: parts of a batch must agree.
        start = noise.x[0].roll(1, 1).flatten(0, 1)
        t = torch.ones(len(start), device=start.device)
        v = self.velocity(start, t, ctx.flatten(0, 1), vector, obs.flatten(0, 1))
        drawn = (start - v).clamp(-1, 1).unflatten(0, obs.shape[:2])
        history = torch.cat([obs[:, :1], drawn[:, :-1]], dim=1)
        return torch.where((noise.own < self.config.own_history)[:, None, None, None, None], history, obs)

    def corrupt_history(self, clip: Clip, noise: Noise) -> tuple[Tensor, Tensor]:
        """When stepping, the history is the model's own work: noise and ghosts make it forgiving."""
        level = noise.level[:, None, None, None, None]
        obs = clip.obs[:, :-1]
        obs = obs + self.config.frame_ghost * level * (before_each(obs) - obs)
        state = clip.state[:, :-1] + self.config.state_noise * self.dynamics.change * noise.state
        if noise.obs is not None:
            obs = obs + self.config.frame_noise * level * noise.obs
        return obs, state

    def context(self, h: Tensor, perturbation: Tensor | float) -> Tensor:
        """ctx = affine(LN(h) + η·ζ): the noise sits where the variance is one, or η would have no scale."""
        return (self.ctx_norm(h) + perturbation) * self.ctx_scale + self.ctx_shift

    def pixel_loss(self, clip: Clip, noise: Noise, last: Tensor, ctx: Tensor, next_state: Tensor) -> Tensor:
        x = clip.obs[:, 1:]
        K = noise.t.shape[0]
        t = logit_normal(noise.t, self.config.t_mean, self.config.t_std)
        x_t = interpolate(x.expand(K, *x.shape), noise.x, t)
        # Frames go into the batch: the decoder must not learn to look across them.
        x_t, t = x_t.flatten(0, 2), t.flatten()
        ctx = repeat(ctx, "b t m d -> (k b t) m d", k=K)
        vector = repeat(torch.cat([next_state, clip.act], dim=-1), "b t a -> (k b t) a", k=K)
        last = last.expand(K, *last.shape).flatten(0, 2)
        out = self.decoder(x_t, t, ctx, vector, last).float()

        target = x.expand(K, *x.shape) if self.config.predict == "x" else noise.x - x
        error = (rearrange(out, "(k b t) c h w -> k b t c h w", k=K, b=len(x)) - target).square().mean(0)
        # Plain means, not divided by the batch's own weights: parts of a batch average to the whole.
        return (self.pixel_weight(clip) * clip.valid[:, :, None, None, None] * error).mean()

    def pixel_weight(self, clip: Clip) -> Tensor:
        """(B, T, 1, H, W): robots are small in the picture; what moves, what stands out counts more."""
        before, x = clip.obs[:, :-1], clip.obs[:, 1:]
        changed = ((x - before).abs().amax(2, keepdim=True) > 0.1).float()
        foreground = ((x - self.background).abs().amax(2, keepdim=True) > 0.1).float()
        return 1 + self.config.change_weight * changed + self.config.foreground_weight * foreground

    def head_losses(self, clip: Clip, heads: Heads.Output, next_state: Tensor) -> dict[str, Tensor]:
        """State, reward and success of the step; errors of the state count in units of what is not linear."""
        losses = {}
        if self.schema.state:
            error = (next_state - clip.state[:, 1:]) / self.dynamics.rest
            # Absolute, not squared, but for the smallest errors: what is not pushed must stay still.
            loss = F.smooth_l1_loss(error, torch.zeros_like(error), beta=0.1, reduction="none").mean(-1)
            losses["state"] = (loss * clip.valid).mean()
        if self.schema.reward:
            losses["reward"] = F.mse_loss(heads.reward, clip.rew)
        if self.schema.success:
            losses["success"] = F.binary_cross_entropy_with_logits(heads.success, clip.success)
        return losses

    # ---- stepping --------------------------------------------------------------------------------------

    def initial(self, obs: Tensor, state: Tensor) -> Imagined:
        """The first frame of B episodes: obs (B, C, H, W) in [-1, 1], state (B, S)."""
        c, B = self.config, len(obs)
        cache = RingCache(
            c.encoder_layers, B, c.heads, c.window, self.num_tokens, c.width // c.heads, obs.device
        )
        nothing = torch.zeros(B, device=obs.device)
        return Imagined(obs, state, state, nothing, nothing.clone(), cache, cache.steps)

    @torch.no_grad()
    def observe(self, s: Imagined, act: Tensor, obs: Tensor, state: Tensor) -> Imagined:
        """The next frame is known: one encoder pass, no rendering. act (B, A)."""
        _, heads, _ = self.think(s, act)
        return self.successor(s, heads, obs, state)

    @torch.no_grad()
    def imagine(self, s: Imagined, act: Tensor, noise: Tensor, num_steps: int | None = None) -> Imagined:
        """The next frame is drawn: one encoder pass, `num_steps` decoder passes. noise (B, C, H, W)."""
        h, heads, state = self.think(s, act)
        vector = torch.cat([state, act], dim=-1)
        obs = self.render(h, vector, s.obs, noise, num_steps or self.config.num_steps)
        return self.successor(s, heads, obs.clamp(-1, 1), state)

    def think(self, s: Imagined, act: Tensor) -> tuple[Tensor, Heads.Output, Tensor]:
        """The encoder's one pass: (B, M, D), what the heads read off it, and the next state (B, S)."""
        s.check()
        h, straight = self.encode_step(s.obs, s.before, s.state, act, s.cache)
        heads = self.heads(self.context(h, 0.0)[:, -1])
        return h, heads, straight.state + heads.rest * self.dynamics.rest

    def encode_step(
        self, obs: Tensor, before: Tensor, state: Tensor, act: Tensor, cache: RingCache
    ) -> tuple[Tensor, LinearDynamics.Output]:
        """One frame into the encoder's cache: h (B, M, D), and where a straight line leads."""
        straight = self.dynamics(before, state, act)
        return self.encoder.step(obs, torch.cat([state, act], dim=-1), straight.features, cache), straight

    def successor(self, s: Imagined, heads: Heads.Output, obs: Tensor, state: Tensor) -> Imagined:
        reward, success = heads.reward.float(), heads.success.float().sigmoid()
        return replace(
            s,
            obs=obs,
            state=state.float(),
            before=s.state,
            reward=reward,
            success=success,
            steps=s.cache.steps,
        )

    def render(self, h: Tensor, vector: Tensor, last: Tensor, noise: Tensor, num_steps: int) -> Tensor:
        """Draws x from p(x | ctx): Euler steps of the decoder's velocity, guided where guidance is not 1."""
        g, ctx = self.config.guidance, self.context(h, 0.0)
        if g == 1:
            return sample(lambda x, t: self.velocity(x, t, ctx, vector, last), noise, num_steps)
        worse = self.context(h, self.config.ctx_noise * self.ctx_perturbation)

        def guided(x: Tensor, t: Tensor) -> Tensor:
            away = self.velocity(x, t, worse, vector, last)
            return away + g * (self.velocity(x, t, ctx, vector, last) - away)

        return sample(guided, noise, num_steps)

    def velocity(self, x_t: Tensor, t: Tensor, ctx: Tensor, vector: Tensor, last: Tensor) -> Tensor:
        """v = noise − x of (F, C, H, W), in float32, whatever the decoder's output means."""
        out = self.decoder(x_t, t, ctx, vector, last).float()
        return (x_t - out) / t[:, None, None, None] if self.config.predict == "x" else out


def before_each(x: Tensor) -> Tensor:
    """What was one frame earlier, (B, T, …); before a clip's first frame nothing is known to have moved."""
    return torch.cat([x[:, :1], x[:, :-1]], dim=1)
