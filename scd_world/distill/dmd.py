"""Distribution matching: frames of the student's own rollouts are to be as likely as the teacher's.

A regression to the recorded frame draws the mean of what might come: blur. Here a frame is moved to where
the teacher finds it more likely than a critic does that knows how likely the student's own frames are (DMD2,
arXiv 2405.14867; on own rollouts: Self Forcing, arXiv 2506.08009):

    x   = the student's frame, in its few steps, after frames of its own
    x_t = (1 − t)·x + t·noise
    ∇x  = (x̂_critic(x_t, t) − x̂_teacher(x_t, t)) / mean |x − x̂_teacher|     x̂ = x_t − t·v, clean frames
    critic: ‖x̂_critic(x_t, t) − x‖² on the same frames, at other times and noise

Teacher and critic read the recorded past, through the teacher's frozen encoder: so what drifted is pulled
back to what can follow that past, and not to what follows the drift. The teacher is autoregressive, as the
student is.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from scd_world.distill.config import DRAWS
from scd_world.distill.objective import (
    DistillBatch,
    Objective,
    column,
    read_history,
    render_clip,
    scd_of,
    uniform,
)
from scd_world.model.flow import interpolate, shift_time
from scd_world.model.losses import total_loss
from scd_world.model.noise import Noise
from scd_world.model.world_model import WorldModel
from scd_world.robot_data.clip import Clip

EDGE = 0.02  # nearer to 0 or 1 a score says nothing


class DistributionMatching(Objective):
    """The loss above, with those of state, reward and success."""

    def __init__(self, model: WorldModel, teacher: WorldModel) -> None:
        super().__init__(model, teacher)
        # It learns beside the model (`Learner`), and is not part of the world that comes out.
        self.critic = deepcopy(teacher).requires_grad_(False)
        scd_of(self.critic).decoder.requires_grad_(True)

    def forward(self, clip: Clip, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        model, (start, asked, learnt) = self.model, thirds(noise)
        if model.filter is not None:
            model.filter.strength.zero_()  # until it is measured anew: what that hides could not be learnt
        own, x = render_clip(model, clip, start)
        with torch.no_grad():
            recorded = read_history(self.teacher, clip, start, clip.obs[:, :-1], clip.state[:, :-1])
            direction = self.direction(recorded, x.detach(), asked)
        losses = {"pixels": (own.weight * (x - (x - direction).detach()).square()).mean() / 2}
        losses |= model.head_losses(clip, own.heads, own.next_state)
        critic = self.critic_loss(recorded, x.detach(), learnt)
        return total_loss(model.config, losses) + critic, losses | {"critic": critic}

    def direction(self, recorded: DistillBatch, x: Tensor, noise: Noise) -> Tensor:
        """Gives (F, C, H, W): away from where the student's frames are more likely than the teacher's."""
        x_t, t = self.noisy(x, noise)
        teacher, critic = (denoised(recorded, net, x_t, t) for net in (self.teacher, self.critic))
        size = (x - teacher).abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-3)
        return (critic - teacher) / size

    def critic_loss(self, recorded: DistillBatch, x: Tensor, noise: Noise) -> Tensor:
        x_t, t = self.noisy(x, noise)
        return recorded.error(denoised(recorded, self.critic, x_t, t), x).mean()

    def noisy(self, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        t = shift_time(uniform(noise.t).clamp(EDGE, 1 - EDGE), self.teacher.config.t_shift)
        return interpolate(x, noise.x.flatten(0, 2), t), t


def denoised(batch: DistillBatch, model: WorldModel, x_t: Tensor, t: Tensor) -> Tensor:
    """x̂ = x_t − t·v: the clean frames that a model sees in noisy ones, (F, C, H, W)."""
    return x_t - column(t) * batch.field(model)(x_t, t, t)


def thirds(noise: Noise) -> list[Noise]:
    """Splits the draws, whose number is a multiple of DRAWS."""
    parts = zip(noise.t.chunk(DRAWS), noise.x.chunk(DRAWS), strict=True)
    return [replace(noise, t=t, x=x) for t, x in parts]
