"""A world model: the four verbs around a core and a state prior.

`loss` learns; `initial`, `observe` and `imagine` step. The *core* (SCD, or one of its baselines) encodes
frames and draws the next one; the *state prior* (`prior.py`) says what the state alone tells of the next
step, or nothing. What is read off the core's encoding is added to what the prior says.

B batch, T steps, K noise draws, C H W frame, M tokens per frame, D width, S state, A action, R features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scd_world.model.config import ModelConfig
from scd_world.model.filter import Corrected, Drawn, Measured, StateFilter, drawing_error, motion_of
from scd_world.model.flow import FirstFrame, denoising_times, interpolate, logit_normal, shift_time
from scd_world.model.heads import AnchorAttention, LowDimHeads
from scd_world.model.kv_cache import RingKVCache
from scd_world.model.layers import Patches
from scd_world.model.losses import anchor_loss, head_losses, pixel_loss, pixel_weight, total_loss
from scd_world.model.noise import Noise, NoiseSampler, corrupt_history
from scd_world.model.prior import PriorPrediction, Scene, ShownFrame, StatePrior
from scd_world.model.rollout_state import RolloutState, Shown
from scd_world.robot_data.clip import Clip, previous_state_action
from scd_world.robot_data.normalizer import Normalizer, standstill
from scd_world.robot_data.schema import DataSchema


class Encoded(NamedTuple):
    """What a core makes of the past."""

    tokens: Tensor  # (…, M, D), off whose last token the heads read
    memory: Any  # what drawing the next frame needs besides, the core's own business


class Core(nn.Module, ABC):
    """A network that encodes frames once and draws the next one: SCD, or a baseline in its place."""

    heads: LowDimHeads  # made by each core after its networks
    learns_from_history = True  # False: it looks at none, and none has to be made forgiving

    def __init__(self, config: ModelConfig, schema: DataSchema) -> None:
        super().__init__()
        self.config, self.schema = config, schema
        self.patches = Patches(len(schema.cameras), schema.height, schema.width, config.patch)
        self.num_tokens = self.patches.count + 1
        self.num_tasks = len(schema.tasks) if len(schema.tasks) > 1 else 0

    @abstractmethod
    def encode_clip(self, obs: Tensor, state_action: Tensor, delta_features: Tensor, noise: Noise) -> Encoded:
        """Encodes a clip's history at once: (B, T, C, H, W), (B, T, S + A), (B, T, R + tasks)."""

    @abstractmethod
    def denoise_clip(
        self, x_t: Tensor, t: Tensor, encoded: Encoded, state_action: Tensor, pixel_inputs: Tensor
    ) -> Tensor:
        """Gives what the network says of each noisy next frame, (K·B·T, C, H, W).

        x_t (K, B, T, C, H, W), t (K, B, T); state_action (B, T, S + A + tasks): next state, action, task;
        pixel_inputs (B, T, I·C, H, W).
        """

    @abstractmethod
    def empty_cache(self, rows: int, device: torch.device) -> RingKVCache:
        """Gives the memory of episodes that have seen nothing."""

    @abstractmethod
    def encode_step(
        self, obs: Tensor, state_action: Tensor, delta_features: Tensor, cache: RingKVCache
    ) -> Encoded:
        """Encodes one more frame, (B, C, H, W), (B, S + A), (B, R + tasks), into the cache."""

    @abstractmethod
    def render(
        self,
        encoded: Encoded,
        state_action: Tensor,
        pixel_inputs: Tensor,
        noise: Tensor,
        num_steps: int,
        first: FirstFrame | None = None,
    ) -> Tensor:
        """Draws the next frame, (B, C, H, W), of the last `encode_step`.

        state_action (B, S + A + tasks): next state, action, task; pixel_inputs (B, I·C, H, W); first: the
        clean frame that the first denoising step sees, as it is to be taken.
        """

    def extra_noise(self, clip: Clip, sampler: NoiseSampler) -> Mapping[str, Tensor]:
        """Gives further fields of `Noise`, of those cores that need them."""
        return {}

    def noisy_frames(self, clip: Clip, noise: Noise) -> tuple[Tensor, Tensor]:
        """Gives K noisy versions x_t (K, B, T, C, H, W) of each next frame, and their t (K, B, T)."""
        x = clip.obs[:, 1:]
        t = logit_normal(noise.t, self.config.t_mean, self.config.t_std)
        t = shift_time(t, self.config.t_shift)
        return interpolate(x.expand(len(t), *x.shape), noise.x, t), t


class Step(NamedTuple):
    """What is known of B episodes where a step begins."""

    obs: Tensor  # (B, C, H, W)
    prev: Tensor  # (B, S + A) state and action one frame earlier
    state: Tensor  # (B, S)
    action: Tensor  # (B, A) that leads on
    task: Tensor  # (B,) int

    @property
    def state_action(self) -> Tensor:
        """(B, S + A)"""
        return torch.cat([self.state, self.action], dim=-1)


# Share of the self-rollouts that no filter corrects: where it says little, a model has to stand by itself.
UNCORRECTED = 0.3


class WorldModel(nn.Module):
    """A core and a state prior, as one thing that learns from clips and steps under actions."""

    background: Tensor  # (C, H, W) the median of the data, which what stands out differs from
    hold_action: Tensor  # (A, S + 1) the action under which a state stays

    def __init__(self, schema: DataSchema, normalizer: Normalizer, prior: StatePrior, core: Core) -> None:
        super().__init__()
        self.schema, self.prior, self.core = schema, prior, core
        config = core.config
        patches, sizes = core.patches, (config.width, config.heads, config.fourier_octaves)
        self.anchor_attention = (
            AnchorAttention(patches, len(schema.state), len(schema.action), *sizes)
            if config.anchor_attention
            else None
        )
        self.register_buffer("background", normalizer.background.clone(), persistent=False)
        self.register_buffer("hold_action", normalizer.hold_action.clone(), persistent=False)
        filters = config.state_filter and prior.has_renderer  # no state, no drawing
        self.filter = StateFilter(len(schema.cameras)) if filters else None

    @property
    def config(self) -> ModelConfig:
        return self.core.config

    @config.setter
    def config(self, config: ModelConfig) -> None:
        self.core.config = config

    @property
    def device(self) -> torch.device:
        return self.background.device

    @property
    def tells_image_error(self) -> bool:
        """Says whether it is known how far off an imagined frame is to be expected."""
        return self.filter is not None and bool(self.filter.error_weights.any())

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Sets it for all parameters but those that were pretrained: these are held whatever is asked."""
        super().requires_grad_(requires_grad)
        self.prior.freeze_pretrained()
        return self

    # ---- what core and prior are handed ----------------------------------------------------------------

    def to_draw(self, state: Tensor, action: Tensor) -> Tensor:
        """Gives what the core draws by: a state (…, S), and of an action (…, A) what is shown, (…, S + A)."""
        return torch.cat([state, self.prior.shown_actions * action], dim=-1)

    def to_render(self, state: Tensor, action: Tensor, task: Tensor) -> Tensor:
        """Gives what a core renders frames by, (…, S + A + tasks): their states (…, S), the actions (…, A)
        that lead there, the task (B,). In learning, distilling and stepping the same."""
        return self.append_task(self.to_draw(state, action), task)

    def append_task(self, values: Tensor, task: Tensor) -> Tensor:
        """Gives (B, …, n + tasks): `values` with the task (B,) as a one-hot code behind them, the first layer
        that it meets being its embedding. Where there is one task alone, `values` as they are."""
        if not self.core.num_tasks:
            return values
        hot = F.one_hot(task, self.core.num_tasks).to(values.dtype)
        hot = hot.view(len(task), *[1] * (values.ndim - 2), self.core.num_tasks)
        return torch.cat([values, hot.expand(*values.shape[:-1], -1)], dim=-1)

    def look_up(self, state: Tensor, action: Tensor, anchor: Tensor, anchor_state: Tensor) -> Tensor | None:
        """Draws what the anchor (B, C, H, W), seen at anchor_state (B, 2·S + A), tells of the next frame: of
        its state (B, …, S) and the action (B, …, A) that leads there → (B, …, C, H, W); None without one."""
        if self.anchor_attention is None:
            return None
        rows, shown_state = state.shape[:-1], anchor_state[:, : state.shape[-1]]
        seen = [at_all_steps(x, rows).flatten(0, len(rows) - 1) for x in (anchor, shown_state)]
        given = self.to_draw(state, action).flatten(0, -2)
        return self.anchor_attention(seen[0], given, seen[1]).unflatten(0, rows)

    def seen_from(
        self,
        obs: Tensor,
        state: Tensor,
        before: Tensor,
        following: Tensor,
        anchor: Tensor,
        scene: Scene,
        where: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor]:
        """Gives frames (B, …, C, H, W) and the anchor (B, C, H, W) as cameras that ride on the robot see them
        of the next states `following` (B, …, S), (B, …, C, H, W) each; where none rides, None, and the anchor
        as it is. state, before (B, …, S): at the frames and one earlier; scene: what the anchor tells; where:
        what the prior's `look_back` says of it, if that is known already."""
        rows, (last, following) = state.shape[:-1], (x.flatten(0, -2) for x in (state, following))
        n = len(rows) - 1
        frames, there = obs.flatten(0, n), torch.cat([state, before], dim=-1).flatten(0, -2)
        here = self.prior.look_back(self.prior.sight(frames, there), following, last)
        if here is None:
            return None, anchor
        carried = self.prior.carry(frames, here).unflatten(0, rows)
        anchor, *known = (at_all_steps(x, rows).flatten(0, n) for x in (anchor, *scene))
        if where is None:
            where = self.prior.look_back(Scene(*known), following, last)
        assert where is not None  # for a camera rides
        return carried, self.prior.carry(anchor, where).unflatten(0, rows)

    def pixel_inputs(
        self,
        last: Tensor,
        state: Tensor,
        anchor: Tensor,
        found: Tensor | None = None,
        carried: Tensor | None = None,
    ) -> Tensor:
        """Gives what the pixel head sees at full resolution, (…, I·C, H, W): the last frame (…, C, H, W); the
        prior's drawing of the next state (…, S), where it has a renderer that does not correct frames; what
        was found in the anchor, and the anchor (B, C, H, W) or (…, C, H, W), where the model looks at one;
        and, where it is known, what the head is to move: the last frame as it is seen next, `carried`, in the
        place of the last frame of a head that moves nothing."""
        images = [last if carried is None or self.config.warp else carried]
        if self.prior.has_renderer and self.filter is None:
            drawn = self.prior.render(state.flatten(0, -2)).unflatten(0, state.shape[:-1])
            images.append(drawn.to(last.dtype))
        if found is not None:
            images.append(found.to(last.dtype))
        if self.config.anchor_frame:
            everywhere = anchor if anchor.ndim == last.ndim else at_all_steps(anchor, last.shape[:-3])
            images.append(everywhere.to(last.dtype))
        if carried is not None and self.config.warp:
            images.append(carried.to(last.dtype))
        return torch.cat(images, dim=-3) if len(images) > 1 else last

    def render_next(
        self,
        encoded: Encoded,
        step: Step,
        state: Tensor,
        shown: Shown,
        steps_since_observed: Tensor,
        noise: Tensor,
        num_steps: int,
    ) -> Corrected:
        """Draws frames of the next states (B, S), as `Core.render` does; where the model has a filter, that
        corrects them."""
        state_action = self.to_render(state, step.action, step.task)
        found = self.look_up(state, step.action, shown.anchor, shown.anchor_state)
        before, _ = step.prev.tensor_split([state.shape[-1]], dim=-1)
        where = self.prior.look_back(shown.scene, state, step.state)
        carried, anchor = self.seen_from(
            step.obs, step.state, before, state, shown.anchor, shown.scene, where
        )
        seen = self.pixel_inputs(step.obs, state, anchor, found, carried)
        given = encoded, state_action, seen, noise, num_steps
        if self.filter is None:
            obs = self.core.render(*given).clamp(-1, 1)
            return Corrected(obs, obs.new_ones(len(obs)))
        measured = self.measure(state, step.state_action, shown, steps_since_observed, where)
        obs = self.core.render(*given, self.filter.first_frame(measured)).clamp(-1, 1)
        return self.filter(obs, step.obs, motion_of(step.state, state, self.prior.delta_scale), measured)

    def measure(
        self,
        state: Tensor,
        prev: Tensor,
        shown: Shown,
        steps_since_observed: Tensor,
        where: Tensor | None = None,
    ) -> Measured:
        """Gives what the filter is told of frames of states (B, S). prev (B, S + A): state and action one
        frame earlier; shown: what the last frame that was shown tells; steps_since_observed (B,) int; where:
        what the prior's `look_back` says of them, if that is known already."""
        assert self.filter is not None
        return self.filter.measured(self.draw(state, prev, shown, where), shown, steps_since_observed)

    def draw(self, state: Tensor, prev: Tensor, shown: Shown, where: Tensor | None = None) -> Drawn:
        """Draws states (B, S) without looking at frames between them and the last that was shown; prev and
        where as in `measure`. Only where the model has a filter."""
        if where is None:
            where = self.prior.look_back(shown.scene, state, prev[:, : state.shape[-1]])
        drawn = self.prior.render(state, prev, shown.scene, where).to(shown.anchor.dtype)
        if self.prior.moves_shown:
            there = ShownFrame(shown.anchor, shown.anchor_state, shown.anchor_drawn)
            moved, log_error = self.prior.move_shown(drawn, state, prev, there, where)
            return Drawn(drawn, None, moved.to(drawn.dtype), log_error)
        if where is None:
            return Drawn(drawn, None)
        return Drawn(drawn, self.prior.follow((shown.anchor, shown.anchor_drawn), where))

    def combine_with_prior(self, tokens: Tensor, prior: PriorPrediction) -> tuple[LowDimHeads.Output, Tensor]:
        """Adds what the heads read off the tokens (…, M, D) to what the prior says: heads, next state (…,
        S)."""
        heads = self.core.heads(tokens[..., -1, :])
        reward, success = heads.reward + prior.reward, heads.success + prior.success
        residual = self.prior.heads_add * heads.state_residual
        state = prior.state + residual * self.prior.residual_scale
        return LowDimHeads.Output(residual, reward, success), self.prior.project(state)

    # ---- learning --------------------------------------------------------------------------------------

    def sample_noise(self, clip: Clip, generator: torch.Generator) -> Noise:
        """Draws fresh noise for `loss` on the generator's device, gives it on the clip's."""
        K, (B, T, *frame) = self.config.noise_samples, (*clip.action.shape[:2], *clip.obs.shape[2:])
        draw = NoiseSampler(generator, clip.obs.device)
        return Noise(
            t=draw.normal(K, B, T),
            x=draw.normal(K, B, T, *frame),
            **self.core.extra_noise(clip, draw),
            state=draw.normal(B, T, clip.state.shape[-1]),
            corruption_level=draw.uniform(B),
            self_rollout=draw.uniform(B),
            obs=draw.normal(B, T, *frame) if self.config.frame_noise else None,
            measured=draw.uniform(B) if self.measured_share else None,
        )

    def forward(self, clip: Clip, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """Gives the loss; under this name because distributed wrappers watch `forward`."""
        return self.loss(clip, noise)

    @property
    def measured_share(self) -> float:
        """The share of the clips that learn from what the filter measures: 0 where no state can be drawn."""
        return 0.0 if self.filter is None else self.config.measured_share

    def loss(self, clip: Clip, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """Learns every next frame of the clip from the frames before it (teacher forcing): the total, ().

        One pass of the core over the history, then K noisy versions of each next frame (paper, §3.2).
        """
        obs, state = self.training_history(clip, noise)
        learns = noise.measured if self.measured_share else None
        if learns is not None:
            off = self.off_measured(clip, learns)
            obs = obs + self.way_of_past(noise) * off[:, :-1]
        encoded, heads, next_state = self.encode_clip(clip, noise, obs, state)
        known = next_state.detach()
        state_action = self.to_render(known, clip.action, clip.task)
        x_t, t = self.core.noisy_frames(clip, noise)
        if learns is not None:
            x_t = x_t + self.measured_part(off[:, 1:], learns, t)
        found = self.look_up(known, clip.action, clip.anchor, clip.anchor_state)
        carried, anchor = self.seen_in_clip(clip, obs, state, known)
        seen = self.pixel_inputs(obs, known, anchor, found, carried)
        out = self.core.denoise_clip(x_t, t, encoded, state_action, seen)
        losses = {"pixels": pixel_loss(self.config, self.background, clip, noise, out, t)}
        losses |= self.head_losses(clip, heads, next_state)
        if found is not None:
            losses["anchor_attention"] = anchor_loss(clip, found)
        return total_loss(self.config, losses), losses

    def seen_in_clip(
        self, clip: Clip, obs: Tensor, state: Tensor, following: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        """Gives the history obs (B, T, C, H, W) and a clip's anchor as `seen_from` does. state and following
        (B, T, S): of the history, and the next ones."""
        before = previous_state_action(state, clip.action, clip.prev)[..., : state.shape[-1]]
        sight = self.prior.sight(clip.anchor, clip.anchor_state)
        return self.seen_from(obs, state, before, following, clip.anchor, sight)

    @torch.no_grad()
    def off_measured(self, clip: Clip, uniform: Tensor) -> Tensor:
        """Gives m − x, (B, T + 1, C, H, W): how far what the filter measures of a clip's recorded states is
        from its frames; 0 of clips whose `uniform` (B,) is not below `measured_share`."""
        learns = uniform < self.measured_share
        rows = rows_to_roll_out(learns)
        some = clip.rows(rows)
        measured = self.measure_frames(some, some.state, some.before_each, None).frame
        off = measured.unflatten(0, (len(rows), -1)) - some.obs
        off = torch.zeros_like(clip.obs).index_copy(0, rows, off)
        return torch.where(learns[:, None, None, None, None], off, 0.0)

    def way_of_past(self, noise: Noise) -> Tensor:
        """Gives v, (B, 1, 1, 1, 1): the past of a clip that learns from what is measured is x + v·(m − x), v
        0 in one half of them and in (0, 1) in the other.

        After a few steps a rollout has no recorded frame left to look back at, only what it made of drawings
        itself: here it learns how far such a past can be trusted, and to make of it what was recorded.
        """
        way = (2 * noise.corruption_level - 1).clamp_min(0)
        return way[:, None, None, None, None]

    def measured_part(self, off: Tensor, uniform: Tensor, t: Tensor) -> Tensor:
        """Gives what noisy frames (K, B, T, C, H, W) at t (K, B, T) differ by where noise was added not to
        the recorded frame but to one on the way to what the filter measures: (1 − t)·u·(m − x).

        Of a share of the clips, each with a u of its own in (0, 1), and where the first denoising step ends
        or later: that is what stepping goes on from. So what is learnt is to redraw what is measured. off (B,
        T, C, H, W): m − x; uniform (B,): which clips, and u.
        """
        steps, shift = self.config.num_steps, self.config.t_shift
        way = (1 - uniform / self.measured_share).clamp_min(0)[:, None]  # u, 0 of the other clips
        way = (1 - t) * way * (t <= denoising_times(steps, shift)[1])
        return way[..., None, None, None] * off

    @torch.no_grad()
    def measure_frames(self, clip: Clip, state: Tensor, prev: Tensor, noise: Noise | None) -> Measured:
        """Gives what the filter is told of frames of states (B, N, S), B·N of them, by what a clip's anchor
        tells; prev (B, N, S + A). noise: which says where nothing is corrected, None: everywhere."""
        B, N = state.shape[:2]
        shown = Shown(*(x.repeat_interleave(N, dim=0) for x in self.shown_of(clip, noise)))
        age = torch.arange(N, device=state.device).repeat(B)
        return self.measure(state.flatten(0, 1), prev.flatten(0, 1), shown, age)

    def encode_clip(
        self, clip: Clip, noise: Noise, obs: Tensor, state: Tensor
    ) -> tuple[Encoded, LowDimHeads.Output, Tensor]:
        """Encodes a history, obs (B, T, C, H, W) and state (B, T, S): encoding, heads (B, T), next state."""
        prior = self.prior(previous_state_action(state, clip.action, clip.prev), state, clip.action)
        state_action = self.to_draw(state, clip.action)
        features = self.append_task(prior.delta_features, clip.task)
        encoded = self.core.encode_clip(obs, state_action, features, noise)
        return encoded, *self.combine_with_prior(encoded.tokens, prior)

    def head_losses(self, clip: Clip, heads: LowDimHeads.Output, next_state: Tensor) -> dict[str, Tensor]:
        """Gives the losses of state, reward and success, those of them that the data has."""
        return head_losses(self.schema, clip, heads, next_state, self.prior.residual_scale)

    def pixel_weight(self, clip: Clip) -> Tensor:
        """Gives (B, T, C, H, W): how much a pixel's error counts."""
        return pixel_weight(self.config, self.background, clip)

    def training_history(self, clip: Clip, noise: Noise) -> tuple[Tensor, Tensor]:
        """Gives frames and states that the next ones are learnt from: recorded or imagined, and not
        perfect."""
        if not self.core.learns_from_history:
            return clip.obs[:, :-1], clip.state[:, :-1]
        obs, state = corrupt_history(self.config, clip, noise, self.prior.delta_scale)
        if noise.self_rollout is None or not self.config.self_rollout_share:
            return obs, state
        return self.self_rollout_history(clip, noise, obs, state), state

    @torch.no_grad()
    def self_rollout_history(self, clip: Clip, noise: Noise, obs: Tensor, state: Tensor) -> Tensor:
        """Gives obs (B, T, C, H, W), in some clips all frames but the first being the model's own work.

        Frames of its own kind are what it meets when stepping (exposure bias); here it learns to mend them.
        The recorded state stays: it says where things are, so that what is learnt is to redraw them there,
        and not to hedge. Each frame is drawn as when stepping, from its own frames before it.
        """
        assert noise.self_rollout is not None
        imagined = noise.self_rollout < self.config.self_rollout_share
        rows = rows_to_roll_out(imagined)
        frames = self.roll_out(clip.rows(rows), noise.rows(rows), obs[rows], state[rows])
        return torch.where(imagined[:, None, None, None, None], obs.index_copy(0, rows, frames), obs)

    def roll_out(self, clip: Clip, noise: Noise, obs: Tensor, state: Tensor) -> Tensor:
        """Gives frames (B, T, C, H, W): the first of obs, and those that the model draws after it."""
        prev = previous_state_action(state, clip.action, clip.prev)
        frames = [obs[:, 0]]
        cache = self.core.empty_cache(len(obs), obs.device)
        shown = self.shown_of(clip, noise)
        for i in range(clip.num_steps - 1):
            step = Step(frames[-1], prev[:, i], state[:, i], clip.action[:, i], clip.task)
            encoded, prior = self.prior_and_encode_step(step, cache)
            _, next_state = self.combine_with_prior(encoded.tokens, prior)
            # Not the noise that frame i + 1 is learnt from; of the same row: parts of a batch must agree.
            start = noise.x[0, :, i - 1]
            age = torch.full_like(clip.task, i)
            drawn = self.render_next(encoded, step, next_state, shown, age, start, self.config.num_steps)
            frames.append(drawn.frame.to(obs.dtype))
        return torch.stack(frames, dim=1)

    def shown_of(self, clip: Clip, noise: Noise | None) -> Shown:
        """Gives what a clip's anchor tells all its frames. Of some clips, which the noise says, a drawing
        that is infinitely far off, which corrects nothing."""
        shown = self.look_at(clip.anchor, *clip.anchor_state.tensor_split([clip.state.shape[-1]], dim=-1))
        if noise is None:
            return shown
        alone = (noise.corruption_level < UNCORRECTED)[:, None]
        return shown._replace(drawing_error=shown.drawing_error.masked_fill(alone, torch.inf))

    # ---- stepping --------------------------------------------------------------------------------------

    def initial(
        self,
        obs: Tensor,
        state: Tensor,
        prev: Tensor | None = None,
        task: Tensor | None = None,
    ) -> RolloutState:
        """Starts B episodes at their first frame.

        obs (B, C, H, W) in [-1, 1], state (B, S); prev (B, S + A): state and action one frame earlier where
        known (None: nothing moves yet); task (B,) int (None: the first).
        """
        B, cache = len(obs), self.core.empty_cache(len(obs), obs.device)
        nothing = torch.zeros(B, device=obs.device)
        prev = standstill(state, self.hold_action) if prev is None else prev
        task = torch.zeros(B, dtype=torch.long, device=obs.device) if task is None else task
        ensemble = self.prior.init_ensemble(prev, state).clone()
        since = torch.zeros_like(task)
        return RolloutState(
            obs,
            state,
            prev,
            nothing,
            nothing.clone(),
            task,
            *self.look_at(obs, state, prev),
            obs[:, :0],  # whoever has a codec knows more of it
            ensemble,
            nothing.clone(),
            since,
            cache,
            cache.steps,
        )

    @torch.no_grad()
    def look_at(self, obs: Tensor, state: Tensor, prev: Tensor) -> Shown:
        """Keeps of a frame (B, C, H, W) that is shown, of the state (B, S) there, and of state and action one
        frame earlier (B, S + A), what later steps ask for."""
        anchor = obs.clone() if self.config.anchor_frame else obs[:, :0]
        anchor_state = self.as_anchor_state(state, prev)
        if self.filter is None:
            return Shown.undrawn(anchor, anchor_state)
        scene = self.prior.scene(obs, torch.cat([state, prev], dim=-1))
        drawn = self.prior.render(state, prev, scene).to(obs.dtype)
        error = unaided_error = drawing_error(obs, drawn)
        if scene.still.shape[1]:
            unaided = self.prior.render(state, prev, scene._replace(still=scene.still[:, :0]))
            unaided_error = drawing_error(obs, unaided.to(obs.dtype))
        return Shown(anchor, anchor_state, *scene, drawn, error, unaided_error)

    def as_anchor_state(self, state: Tensor, prev: Tensor) -> Tensor:
        """Gives what is kept of the state (B, S) at that frame, and of state and action one frame earlier (B,
        S + A): all, (B, 2·S + A), or nothing where no model asks."""
        asked = self.anchor_attention is not None or self.prior.moves_shown
        return torch.cat([state, prev], dim=-1) if asked else state[:, :0]

    @torch.no_grad()
    def observe(self, s: RolloutState, action: Tensor, obs: Tensor, state: Tensor) -> RolloutState:
        """Steps to a next frame that is known: it is remembered, nothing is rendered. action (B, A)."""
        _, heads, _ = self.encode_and_predict(s, action)
        prev = torch.cat([s.state, action], dim=-1)
        ensemble = self.prior.init_ensemble(prev, state)
        s = replace(
            s,
            **self.look_at(obs, state, prev)._asdict(),
            detail=obs[:, :0],  # it was of the frame that was shown before
        )
        known = Corrected(obs, torch.zeros_like(s.image_error))
        since = torch.zeros_like(s.steps_since_observed)
        return self.next_state(s, heads, prev, known, state, ensemble, since)

    @torch.no_grad()
    def imagine(
        self, s: RolloutState, action: Tensor, noise: Tensor, num_steps: int | None = None
    ) -> RolloutState:
        """Steps to a next frame that is drawn, in `num_steps` denoising steps. noise (B, C, H, W)."""
        encoded, heads, state = self.encode_and_predict(s, action)
        step, steps, age = step_of(s, action), num_steps or self.config.num_steps, s.steps_since_observed
        drawn = self.render_next(encoded, step, state, s.shown, age, noise, steps)
        ensemble = self.prior.step_ensemble(s.ensemble, action, age)
        return self.next_state(s, heads, step.state_action, drawn, state, ensemble, age + 1)

    def encode_and_predict(
        self, s: RolloutState, action: Tensor
    ) -> tuple[Encoded, LowDimHeads.Output, Tensor]:
        """Encodes the newest frame once: the encoding, what the heads read, next state (B, S)."""
        s.check()
        encoded, prior = self.prior_and_encode_step(step_of(s, action), s.cache)
        return encoded, *self.combine_with_prior(encoded.tokens, prior)

    def prior_and_encode_step(self, step: Step, cache: RingKVCache) -> tuple[Encoded, PriorPrediction]:
        """Encodes one frame into the cache; gives the encoding and what the prior alone says."""
        prior = self.prior(step.prev, step.state, step.action)
        state_action = self.to_draw(step.state, step.action)
        features = self.append_task(prior.delta_features, step.task)
        return self.core.encode_step(step.obs, state_action, features, cache), prior

    def next_state(
        self,
        s: RolloutState,
        heads: LowDimHeads.Output,
        prev: Tensor,
        drawn: Corrected,
        state: Tensor,
        ensemble: Tensor,
        steps_since_observed: Tensor,
    ) -> RolloutState:
        reward, success = heads.reward.float(), heads.success.float().sigmoid()
        return replace(
            s,
            obs=drawn.frame,
            image_error=drawn.error.float(),
            state=state.float(),
            prev=prev,
            reward=reward,
            success=success,
            ensemble=ensemble,
            steps_since_observed=steps_since_observed,
            steps=s.cache.steps,
        )


def step_of(s: RolloutState, action: Tensor) -> Step:
    return Step(s.obs, s.prev, s.state, action, s.task)


def at_all_steps(x: Tensor, rows: Sequence[int]) -> Tensor:
    """Gives what is of each episode, (B, …), at each of its steps: (*rows, …), rows being (B,) or (B, T)."""
    return x if len(rows) == 1 else x[:, None].expand(*rows, *x.shape[1:])


def rows_to_roll_out(imagined: Tensor) -> Tensor:
    """Gives the numbers (R,) of those clips whose past is imagined, of all (B,).

    One at least: processes that share weights call the networks equally often. All of them where asking
    would wait for a GPU, or break a graph.
    """
    if imagined.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.arange(len(imagined), device=imagined.device)
    return imagined.nonzero()[:, 0] if imagined.any() else torch.zeros(1, dtype=torch.long)


def observe_context(model: WorldModel, clip: Clip, context: int) -> RolloutState:
    """Shows a model the first k frames of a clip: it then stands at frame k − 1."""
    s = model.initial(clip.obs[:, 0], clip.state[:, 0], clip.prev, clip.task)
    for i in range(context - 1):
        s = model.observe(s, clip.action[:, i], clip.obs[:, i + 1], clip.state[:, i + 1])
    return s
