"""What all distillations share: a student that learns, a frozen teacher, and the frames to learn from.

F frames (batch, time and noise samples folded together), C H W frame, M context tokens, D width, S state.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from einops import repeat
from torch import Tensor, nn

from scd_world.model.filter import Measured
from scd_world.model.flow import VelocityField, euler_sample_interval
from scd_world.model.heads import LowDimHeads
from scd_world.model.noise import Noise
from scd_world.model.rollout_state import Shown
from scd_world.model.scd import SCD
from scd_world.model.world_model import WorldModel
from scd_world.robot_data.clip import Clip, previous_state_action


@dataclass(frozen=True)
class DistillBatch:
    """A decoder's inputs for the frames of a clip, and the frames themselves."""

    h: Tensor  # (F, M, D) the encoder's output
    state_action: Tensor  # (F, S + A + tasks)
    pixel_inputs: Tensor  # (F, I·C, H, W) of the pixel head
    x: Tensor  # (F, C, H, W) the recorded next frame
    noise: Tensor  # (F, C, H, W)
    weight: Tensor  # (F, C, H, W) of a pixel's error, as in `WorldModel.loss`
    heads: LowDimHeads.Output  # (B, T)
    next_state: Tensor  # (B, T, S)

    def field(self, model: WorldModel) -> VelocityField:
        """Gives the model's velocity for these frames."""
        return scd_of(model).velocity(self.h, self.state_action, self.pixel_inputs)

    def error(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Computes weighted square errors, (F, C, H, W)."""
        return self.weight * (predicted - target).square()


def scd_of(model: WorldModel) -> SCD:
    """Gives the model's SCD: only that has a decoder separate from its encoder."""
    assert isinstance(model.core, SCD)
    return model.core


class Objective(nn.Module):
    """Wraps the model that learns; `forward(clip, noise)` is the loss, as `Learner` wants it."""

    def __init__(self, model: WorldModel, teacher: WorldModel) -> None:
        super().__init__()
        self.model, self.teacher = model, teacher.requires_grad_(False)

    def sample_noise(self, clip: Clip, generator: torch.Generator) -> Noise:
        """Samples what `forward` needs of randomness."""
        return self.model.sample_noise(clip, generator)


class DecoderObjective(Objective):
    """The decoder alone learns; its context comes from the frozen encoder, once for all noise samples."""

    def __init__(self, model: WorldModel, teacher: WorldModel) -> None:
        super().__init__(model.requires_grad_(False), teacher)
        scd_of(model).decoder.requires_grad_(True)


def read_clip(model: WorldModel, clip: Clip, noise: Noise) -> DistillBatch:
    """Encodes the clip's history in one parallel pass, such as `WorldModel.loss` learns from."""
    return read_history(model, clip, noise, *model.training_history(clip, noise))


def read_history(model: WorldModel, clip: Clip, noise: Noise, obs: Tensor, state: Tensor) -> DistillBatch:
    """The same of the history obs (B, T, C, H, W) and state (B, T, S)."""
    prior = model.prior(previous_state_action(state, clip.action, clip.prev), state, clip.action)
    core = scd_of(model)
    h = core.encode(
        obs, model.to_draw(state, clip.action), model.append_task(prior.delta_features, clip.task)
    )
    heads, next_state = model.combine_with_prior(core.perturb_context(h, 0.0), prior)
    known = next_state.detach()
    state_action = model.to_render(known, clip.action, clip.task)
    weight = model.pixel_weight(clip) * clip.valid[:, :, None, None, None]
    found = model.look_up(known, clip.action, clip.anchor, clip.anchor_state)
    carried, anchor = model.seen_in_clip(clip, obs, state, known)
    seen = model.pixel_inputs(obs, known, anchor, found, carried)

    def fold(values: Tensor) -> Tensor:
        return repeat(values, "b t ... -> (k b t) ...", k=len(noise.x))

    return DistillBatch(
        h=fold(h),
        state_action=fold(state_action),
        pixel_inputs=fold(seen),
        x=fold(clip.obs[:, 1:]),
        noise=noise.x.flatten(0, 2),
        weight=fold(weight),
        heads=heads,
        next_state=next_state,
    )


def render_clip(model: WorldModel, clip: Clip, noise: Noise) -> tuple[DistillBatch, Tensor]:
    """Draws every next frame as in stepping, (F, C, H, W): from pure noise, in `num_steps` steps, after what
    `read_clip` reads, and with the filter's first correction. The gradient goes through all steps."""
    batch, config, first = read_clip(model, clip, noise), model.config, None
    if model.filter is not None:
        measured = model.measure_frames(clip, batch.next_state, clip.before_each[:, 1:], noise)
        measured = of_draws(measured, len(noise.x))
        first = model.filter.first_frame(measured)
    x = euler_sample_interval(batch.field(model), batch.noise, config.num_steps, config.t_shift, first)
    return batch, x


def of_draws(measured: Measured, K: int) -> Measured:
    """Gives the same for K draws of each frame, draws first."""
    draws = partial(repeat, pattern="n ... -> (k n) ...", k=K)
    shown = Shown(*(draws(x) for x in measured.shown))
    return Measured(
        frame=draws(measured.frame),
        drawn=draws(measured.drawn),
        shown=shown,
        steps_since_observed=draws(measured.steps_since_observed),
        log_error=draws(measured.log_error),
    )


def uniform(normal: Tensor) -> Tensor:
    """Turns standard normal values into uniform ones in (0, 1), (F,)."""
    return torch.special.ndtr(normal).flatten()


def column(t: Tensor) -> Tensor:
    """Reshapes (F,) so that it multiplies frames (F, C, H, W)."""
    return t[:, None, None, None]
