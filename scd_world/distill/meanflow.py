"""MeanFlow: the decoder learns the average velocity of a whole stretch of the teacher's path.

u(x_t, t, s) is the average over [s, t] of the velocity along the path through x_t, so that one step
x_s = x_t − (t − s)·u is exact, however long. Differentiating (t − s)·u = ∫ v along the path gives

    u = v − (t − s) · du/dt,      du/dt = JVP of u at (x_t, t, s) in direction (v, 1, 0)

The derivative is taken forward, in one pass beside u's own. v is the teacher's: its noise is gone. The
decoder gets s by an embedding that starts at zero (`Decoder.target_time`), so that training starts at u = v.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from scd_world.distill.objective import DecoderObjective, column, read_clip, uniform
from scd_world.model.flow import VelocityField, interpolate, shift_time
from scd_world.model.noise import Noise
from scd_world.model.pixel_heads import Warp
from scd_world.model.world_model import WorldModel
from scd_world.robot_data.clip import Clip

SMALLEST_T = 0.01  # a decoder that predicts x gives v = (x_t − x) / t
SMALLEST_ERROR = 1e-3  # c of the loss ‖Δ‖² / (‖Δ⁻‖² + c): frames that are right already weigh little


class MeanFlow(DecoderObjective):
    """The loss above."""

    def __init__(self, model: WorldModel, teacher: WorldModel) -> None:
        super().__init__(model, teacher)
        for part in model.modules():
            if isinstance(part, Warp):
                part.sample = sample_bilinear

    def sample_noise(self, clip: Clip, generator: torch.Generator) -> Noise:
        """Samples two t for each noisy frame: for where the stretch begins, and for how long it is."""
        noise = self.model.sample_noise(clip, generator)
        share = torch.randn(noise.t.shape, generator=generator, device=generator.device).to(noise.t.device)
        return replace(noise, t=torch.cat([noise.t, share]))

    def forward(self, clip: Clip, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        first, share = noise.t.chunk(2)
        t, shift = uniform(first).clamp_min(SMALLEST_T), self.model.config.t_shift
        t, s = (shift_time(time, shift) for time in (t, t * stretch(uniform(share))))
        with torch.no_grad():
            batch = read_clip(self.teacher, clip, noise)
        x_t = interpolate(batch.x, batch.noise, t)
        with torch.no_grad():
            v = batch.field(self.teacher)(x_t, t, t)
        with torch.autocast(x_t.device.type, enabled=False):  # in bf16 the derivative would be noise
            u, target = average_and_target(batch.field(self.model), x_t, t, s, v)
        # In units of the frame, as a decoder that predicts x was trained: near t = 0 velocities mean little.
        unit = column(t) if self.model.config.predict == "x" else 1.0
        error = batch.error(unit * u, unit * target).mean((1, 2, 3))
        loss = (error / (error.detach() + SMALLEST_ERROR)).mean()
        return loss, {"pixels": error.mean().detach()}


def stretch(share: Tensor) -> Tensor:
    """Turns uniform samples into s / t: a quarter down to 0, a quarter of no length, half in between."""
    return ((share - 0.25) * 2).clamp(0, 1)


def sample_bilinear(image: Tensor, where: Tensor) -> Tensor:
    """Does what `Warp.sample` does, of operations that have a forward derivative: grid_sample has none.

    image (F, C, H, W), where (F, h, w, 2) x and y in [-1, 1] → (F, C, h, w).
    """
    C, H, W = image.shape[1:]
    end = where.new_tensor([W, H])
    place = (((where + 1) * end - 1) / 2).clamp_min(0).minimum(end - 1)
    corner = place.detach().floor()
    right, down = (place - corner).unbind(-1)
    (x, y), (x_next, y_next) = corner.long().unbind(-1), (corner + 1).minimum(end - 1).long().unbind(-1)

    def at(row: Tensor, column: Tensor) -> Tensor:
        cell = (row * W + column).flatten(1)[:, None].expand(-1, C, -1)
        return image.flatten(2).gather(2, cell).unflatten(2, row.shape[1:])

    above = torch.lerp(at(y, x), at(y, x_next), right[:, None])
    below = torch.lerp(at(y_next, x), at(y_next, x_next), right[:, None])
    return torch.lerp(above, below, down[:, None])


def average_and_target(
    field: VelocityField, x_t: Tensor, t: Tensor, s: Tensor, v: Tensor
) -> tuple[Tensor, Tensor]:
    """Computes u(x_t, t, s) with its gradient, and its target without one, (F, C, H, W) each.

    v: the teacher's velocity at (x_t, t).
    """
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no forward derivative
        direction = v, torch.ones_like(t), torch.zeros_like(s)
        # torch declares the three results that has_aux=True gives.
        u, change = torch.func.jvp(field, (x_t, t, s), direction)  # type: ignore[misc]
    return u, (v - column(t - s) * change).detach()
