"""What every world model here has in common: four verbs, body, heads, losses, and how one steps.

`loss` learns; `initial`, `observe` and `imagine` step. A model of its own says four things: how a clip is
learnt (`predict`), how one more frame enters its memory (`write`), how the heads read that (`said`), and how
a frame is drawn (`render`). So SCD and its rivals (`baselines/`) differ there and nowhere else.

B batch, T steps, K noise draws, C H W frame, M tokens per frame, D width, S state, A action.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from scd_world.model.config import ModelConfig
from scd_world.model.flow import interpolate, logit_normal
from scd_world.model.heads import Heads
from scd_world.model.history import before_each, frame_before
from scd_world.model.kv_cache import RingCache
from scd_world.model.layers import Patches
from scd_world.model.noise import Draw, Noise
from scd_world.model.pixel_heads import ConvHead, PatchHead
from scd_world.model.rollout_state import Imagined
from scd_world.prior.dynamics import Body
from scd_world.prior.renderer import Sketch
from scd_world.prior.uncertainty import Doubt
from scd_world.robot_data.clip import Clip
from scd_world.robot_data.normalizer import Stats
from scd_world.robot_data.schema import DataSchema


class Predicted(NamedTuple):
    """What a model says about each next frame of a clip."""

    pixels: Tensor  # () the loss of the drawn frames
    heads: Heads.Output  # (B, T)
    state: Tensor  # (B, T, S)


class BaseModel(nn.Module, ABC):
    heads: Heads  # made by each model after its networks

    def __init__(self, config: ModelConfig, schema: DataSchema, stats: Stats) -> None:
        super().__init__()
        self.config, self.schema = config, schema
        self.num_tasks = len(schema.tasks) if len(schema.tasks) > 1 else 0
        self.patches = Patches(len(schema.cameras), schema.height, schema.width, config.patch)
        self.num_tokens = self.patches.count + 1
        self.body = Body(stats, config.body_width, config.body_layers)
        self.doubt = Doubt(len(schema.state))
        self.sketch = self.make_sketch(stats)
        self.register_buffer("background", stats.background.clone(), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.background.device

    # ---- what a model says for itself ------------------------------------------------------------------

    @abstractmethod
    def predict(self, clip: Clip, noise: Noise, obs: Tensor, state: Tensor, body: Body.Output) -> Predicted:
        """All next frames of a clip, from the history that it is to be learnt from.

        obs (B, T, C, H, W), state (B, T, S), body (B, T): what the body alone says.
        """

    @abstractmethod
    def empty_cache(self, rows: int, device: torch.device) -> RingCache:
        """The memory of episodes that have seen nothing."""

    @abstractmethod
    def write(self, obs: Tensor, vector: Tensor, rates: Tensor, cache: RingCache) -> Tensor:
        """One more frame, (B, C, H, W), (B, S + A), (B, R), into the memory; h (B, M, D) comes back.

        rates: what the body expects to change, and the task (`told`).
        """

    @abstractmethod
    def said(self, h: Tensor) -> Tensor:
        """(…, M, D), off whose last token the heads read."""

    @abstractmethod
    def render(
        self, h: Tensor, cache: RingCache, vector: Tensor, seen: Tensor, noise: Tensor, num_steps: int
    ) -> Tensor:
        """The next frame, (B, C, H, W).

        h: of the last `write` to the cache; vector (B, S + A + tasks): next state, action, and the task
        (`told`); seen (B, I·C, H, W): see `seen`.
        """

    def told(self, values: Tensor, task: Tensor) -> Tensor:
        """(B, …, n) with the task (B,) behind it, one number for each of them: the first layer that it meets
        is its embedding. Where there is one task alone, nothing is said."""
        if not self.num_tasks:
            return values
        hot = F.one_hot(task, self.num_tasks).to(values.dtype)
        hot = hot.view(len(task), *[1] * (values.ndim - 2), self.num_tasks)
        return torch.cat([values, hot.expand(*values.shape[:-1], -1)], dim=-1)

    def draw_more(self, clip: Clip, draw: Draw) -> Mapping[str, Tensor]:
        """Further fields of `Noise`, of those models that need them."""
        return {}

    def render_head(self, stats: Stats) -> nn.Module:
        """The last layer, tokens to a frame: of every model the same."""
        c = self.config
        if c.head == "patch":
            return PatchHead(c.width, self.patches, c.copy_last)
        return ConvHead(c.width, self.patches, stats.background, c.conv_channels, self.sketch is not None)

    def make_sketch(self, stats: Stats) -> Sketch | None:
        """What the state alone draws. It is taught beforehand (`fit_sketch.py`), and held from then on."""
        parts, size = self.config.sketch_parts, len(self.schema.state)
        if self.config.head == "patch" or not (parts and size):
            return None
        return Sketch(size, stats.background, parts).requires_grad_(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """What was learnt beforehand is held whatever is asked for."""
        super().requires_grad_(requires_grad)
        for part in (self.sketch, self.doubt):
            if part is not None:
                part.requires_grad_(False)
        return self

    def seen(self, last: Tensor, state: Tensor) -> Tensor:
        """What the render head sees: the last frame (…, C, H, W) and, where there is one, the sketch of the
        next state (…, S) behind it."""
        if self.sketch is None:
            return last
        sketch = self.sketch(state.flatten(0, -2)).unflatten(0, state.shape[:-1])
        return torch.cat([last, sketch.to(last.dtype)], dim=-3)

    # ---- learning --------------------------------------------------------------------------------------

    def draw_noise(self, clip: Clip, generator: torch.Generator) -> Noise:
        """Fresh noise for `loss`, drawn on the generator's device, given on the clip's."""
        K, (B, T, *frame) = self.config.draws, (*clip.act.shape[:2], *clip.obs.shape[2:])
        draw = Draw(generator, clip.obs.device)
        return Noise(
            t=draw.normal(K, B, T),
            x=draw.normal(K, B, T, *frame),
            **self.draw_more(clip, draw),
            state=draw.normal(B, T, clip.state.shape[-1]),
            level=draw.uniform(B),
            own=draw.uniform(B),
            obs=draw.normal(B, T, *frame) if self.config.frame_noise else None,
        )

    def forward(self, clip: Clip, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss; under this name because distributed wrappers watch `forward`."""
        return self.loss(clip, noise)

    def loss(self, clip: Clip, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """Teacher forcing: every next frame of the clip from the recorded ones before it."""
        obs, state = self.history(clip, noise)
        body = self.body(frame_before(state, clip.act, clip.before), state, clip.act)
        pixels, heads, next_state = self.predict(clip, noise, obs, state, body)
        losses = {"pixels": pixels} | self.head_losses(clip, heads, next_state)
        return self.weigh(losses), losses

    def weigh(self, losses: Mapping[str, Tensor]) -> Tensor:
        weights = {"pixels": 1.0, "state": self.config.state_weight}
        weights |= {"reward": self.config.reward_weight, "success": self.config.success_weight}
        return sum(weights[name] * value for name, value in losses.items())

    def history(self, clip: Clip, noise: Noise) -> tuple[Tensor, Tensor]:
        """Frames and states that the next ones are learnt from: recorded or imagined, and not perfect."""
        obs, state = self.corrupt_history(clip, noise)
        if noise.own is None or not self.config.own_history:
            return obs, state
        return self.imagine_history(clip, noise, obs, state), state

    def read(self, said: Tensor, body: Body.Output) -> tuple[Heads.Output, Tensor]:
        """What the body alone says, and what the pictures (…, M, D) add to it: heads, next state (…, S)."""
        heads = self.heads(said[..., -1, :])
        reward, success = heads.reward + body.reward, heads.success + body.success
        state = body.state + heads.rest * self.body.line.rest
        return Heads.Output(heads.rest, reward, success), self.body.lawful(state)

    @torch.no_grad()
    def imagine_history(self, clip: Clip, noise: Noise, obs: Tensor, state: Tensor) -> Tensor:
        """obs (B, T, C, H, W), in some clips all frames but the first being the model's own work.

        Frames of its own kind are what it meets when stepping (exposure bias); here it learns to mend them.
        The recorded state stays: it says where things are, so that what is learnt is to redraw them there,
        and not to hedge. Each frame is drawn in one denoising step, from its own frames before it.
        """
        before = frame_before(state, clip.act, clip.before)
        frames = [obs[:, 0]]
        cache = self.empty_cache(len(obs), obs.device)
        for i in range(clip.num_steps - 1):
            now = before[:, i], state[:, i], clip.act[:, i], clip.task
            h, body = self.encode_step(frames[-1], *now, cache)
            _, next_state = self.read(self.said(h), body)
            vector = self.told(torch.cat([next_state, clip.act[:, i]], dim=-1), clip.task)
            # Not the noise that frame i + 1 is learnt from; of the same row: parts of a batch must agree.
            start = noise.x[0, :, i - 1]
            drawn = self.render(h, cache, vector, self.seen(frames[-1], next_state), start, 1)
            frames.append(drawn.clamp(-1, 1).to(obs.dtype))
        own = noise.own < self.config.own_history
        return torch.where(own[:, None, None, None, None], torch.stack(frames, dim=1), obs)

    def corrupt_history(self, clip: Clip, noise: Noise) -> tuple[Tensor, Tensor]:
        """When stepping, the history is the model's own work: noise and ghosts make it forgiving."""
        level = noise.level[:, None, None, None, None]
        obs = clip.obs[:, :-1]
        obs = obs + self.config.frame_ghost * level * (before_each(obs) - obs)
        state = clip.state[:, :-1] + self.config.state_noise * self.body.line.change * noise.state
        if noise.obs is not None:
            obs = obs + self.config.frame_noise * level * noise.obs
        return obs, state

    def noisy_frames(self, clip: Clip, noise: Noise) -> tuple[Tensor, Tensor]:
        """K noisy versions x_t (K, B, T, C, H, W) of each next frame, and their t (K, B, T)."""
        x = clip.obs[:, 1:]
        t = logit_normal(noise.t, self.config.t_mean, self.config.t_std)
        return interpolate(x.expand(len(t), *x.shape), noise.x, t), t

    def pixel_error(self, clip: Clip, noise: Noise, out: Tensor, t: Tensor) -> Tensor:
        """The weighted square error of what `predict` means, (K·B·T, C, H, W), said at times t (K, B, T)."""
        x = clip.obs[:, 1:]
        out = rearrange(out.float(), "(k b t) c h w -> k b t c h w", b=x.shape[0], t=x.shape[1])
        target = x if self.config.predict == "x" else noise.x - x
        ramp = 1 - self.config.t_ramp * t[..., None, None, None]
        error = (ramp * (out - target).square()).mean(0)
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
            error = (next_state - clip.state[:, 1:]) / self.body.line.rest
            # Absolute, not squared, but for the smallest errors: what is not pushed must stay still.
            loss = F.smooth_l1_loss(error, torch.zeros_like(error), beta=0.1, reduction="none").mean(-1)
            losses["state"] = (loss * clip.valid).mean()
        if self.schema.reward:
            losses["reward"] = F.mse_loss(heads.reward, clip.rew)
        if self.schema.success:
            losses["success"] = F.binary_cross_entropy_with_logits(heads.success, clip.success)
        return losses

    # ---- stepping --------------------------------------------------------------------------------------

    def initial(
        self, obs: Tensor, state: Tensor, before: Tensor | None = None, task: Tensor | None = None
    ) -> Imagined:
        """The first frame of B episodes: obs (B, C, H, W) in [-1, 1], state (B, S), state and action one
        frame earlier (B, S + A) where known (else nothing moves yet), and the task (B,), else the first."""
        B, cache = len(obs), self.empty_cache(len(obs), obs.device)
        nothing = torch.zeros(B, device=obs.device)
        before = self.body.line.at_rest(state) if before is None else before
        task = torch.zeros(B, dtype=torch.long, device=obs.device) if task is None else task
        copies, age = self.doubt.begin(before, state).clone(), torch.zeros_like(task)
        return Imagined(obs, state, before, nothing, nothing.clone(), task, copies, age, cache, cache.steps)

    @torch.no_grad()
    def observe(self, s: Imagined, act: Tensor, obs: Tensor, state: Tensor) -> Imagined:
        """The next frame is known: it is remembered, nothing is rendered. act (B, A)."""
        _, heads, _ = self.think(s, act)
        before = torch.cat([s.state, act], dim=-1)
        known = self.doubt.begin(before, state)
        return self.successor(s, heads, before, obs, state, known, torch.zeros_like(s.age))

    @torch.no_grad()
    def imagine(self, s: Imagined, act: Tensor, noise: Tensor, num_steps: int | None = None) -> Imagined:
        """The next frame is drawn, in `num_steps` denoising steps. noise (B, C, H, W)."""
        h, heads, state = self.think(s, act)
        vector = self.told(torch.cat([state, act], dim=-1), s.task)
        seen = self.seen(s.obs, state)
        obs = self.render(h, s.cache, vector, seen, noise, num_steps or self.config.num_steps)
        copies = self.doubt.step(self.body, s.copies, act, s.age)
        before = torch.cat([s.state, act], dim=-1)
        return self.successor(s, heads, before, obs.clamp(-1, 1), state, copies, s.age + 1)

    def think(self, s: Imagined, act: Tensor) -> tuple[Tensor, Heads.Output, Tensor]:
        """What one pass over the newest frame leaves: h (B, M, D), the heads' reading, next state (B, S)."""
        s.check()
        h, body = self.encode_step(s.obs, s.before, s.state, act, s.task, s.cache)
        return h, *self.read(self.said(h), body)

    def encode_step(
        self, obs: Tensor, before: Tensor, state: Tensor, act: Tensor, task: Tensor, cache: RingCache
    ) -> tuple[Tensor, Body.Output]:
        """One frame into the memory: h (B, M, D), and what the body alone says."""
        body = self.body(before, state, act)
        vector = torch.cat([state, act], dim=-1)
        return self.write(obs, vector, self.told(body.features, task), cache), body

    def successor(
        self,
        s: Imagined,
        heads: Heads.Output,
        before: Tensor,
        obs: Tensor,
        state: Tensor,
        copies: Tensor,
        age: Tensor,
    ) -> Imagined:
        reward, success = heads.reward.float(), heads.success.float().sigmoid()
        return replace(
            s,
            obs=obs,
            state=state.float(),
            before=before,
            reward=reward,
            success=success,
            copies=copies,
            age=age,
            steps=s.cache.steps,
        )


def after_context(model: BaseModel, clip: Clip, context: int) -> Imagined:
    """Standing at frame k − 1, having seen frames 0 … k − 1."""
    s = model.initial(clip.obs[:, 0], clip.state[:, 0], clip.before, clip.task)
    for i in range(context - 1):
        s = model.observe(s, clip.act[:, i], clip.obs[:, i + 1], clip.state[:, i + 1])
    return s
