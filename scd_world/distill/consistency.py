"""Causal consistency distillation: from every point of a path, the decoder predicts where the path ends.

Two neighboring points of the teacher's path from noise to a frame must lead to the same end:

    x_n+1 = x_n + (t_n+1 − t_n) · v_teacher(x_n, t_n)        one Euler step on a grid of 48
    loss  = ‖G(x_n, t_n) − G⁻(x_n+1, t_n+1)‖²,   G(x, t) = x − t·v(x, t),   G(x, 0) = x

G⁻ has the averaged weights. The teacher is the autoregressive model itself, so the end is fixed by the
context and the noise; the context comes from its frozen encoder, once, and only the decoder learns.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor

from scd_world.distill.objective import DecoderObjective, column, read_clip, uniform
from scd_world.model.flow import VelocityField, interpolate, shift_time
from scd_world.model.noise import Noise
from scd_world.model.world_model import WorldModel
from scd_world.robot_data.clip import Clip


class Consistency(DecoderObjective):
    """The loss above; grid: how many noise levels it has."""

    def __init__(self, model: WorldModel, teacher: WorldModel, grid: int) -> None:
        super().__init__(model, teacher)
        self.grid, self.target = grid, deepcopy(model).requires_grad_(False)

    def follow(self, average: Mapping[str, Tensor]) -> None:
        """Makes these tensors, which change in place as the model learns, the target's weights."""
        for name, parameter in self.target.named_parameters():
            parameter.data = average[name]

    def forward(self, clip: Clip, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            batch = read_clip(self.teacher, clip, noise)
        level = (uniform(noise.t) * self.grid).floor().clamp(max=self.grid - 1) + 1
        shift = self.model.config.t_shift
        t, s = (shift_time(at / self.grid, shift) for at in (level, level - 1))
        first = shift_time(1 / self.grid, shift)
        x_t, end = path_end(
            batch.field(self.teacher), batch.field(self.target), batch.x, batch.noise, t, s, first
        )
        predicted = leap(batch.field(self.model), x_t, t)
        loss = batch.error(predicted, end).mean()
        return loss, {"pixels": loss}


def leap(field: VelocityField, x_t: Tensor, t: Tensor) -> Tensor:
    """Goes the whole way to the end at once: G(x, t) = x − t·v(x, t)."""
    return x_t - column(t) * field(x_t, t, torch.zeros_like(t))


@torch.no_grad()
def path_end(
    teacher: VelocityField,
    target: VelocityField,
    x: Tensor,
    noise: Tensor,
    t: Tensor,
    s: Tensor,
    smallest: float,
) -> tuple[Tensor, Tensor]:
    """Gives a point of the path at each t (F,), and where the target predicts its end after a step to s (F,).

    x, noise: (F, C, H, W), as are both results; smallest: the lowest time that is not 0.
    """
    x_t = interpolate(x, noise, t)
    x_s = x_t + column(s - t) * teacher(x_t, t, s)
    end = leap(target, x_s, s.clamp_min(smallest))  # at s = 0 it is reached, and v may divide by s
    return x_t, torch.where(column(s) > 0, end, x_s)
