"""Everything random that one loss needs, drawn beforehand: equal noise gives equal losses.

B batch, T steps, K noise draws, C H W frame, M context tokens, D width, S state.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

OF_DRAWS = ("t", "x")  # the fields whose first axis is K; of all others it is B


@dataclass(frozen=True)
class Noise:
    """Everything random that one loss needs; drawn by a model's `draw_noise`. None: this model needs none."""

    t: Tensor  # (K, B, T) standard normal, becomes t
    x: Tensor  # (K, B, T, C, H, W)
    state: Tensor  # (B, T, S)
    level: Tensor  # (B,) uniform, how noisy this clip's input frames are
    own: Tensor | None = None  # (B,) uniform: below own_history a clip's past is imagined; None: of no clip
    obs: Tensor | None = None  # (B, T, C, H, W), None where frame_noise is 0
    ctx: Tensor | None = None  # (B, T, M, D) perturbs SCD's context
    past_t: Tensor | None = None  # (B, T) what becomes the noise level of each frame of the history
    past_x: Tensor | None = None  # (B, T, C, H, W) their noise
    past_clean: Tensor | None = None  # (B, T) uniform, which of them stay clean

    def rows(self, rows: slice) -> Noise:
        """The noise of these rows of the batch."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Noise(
            **{
                name: value if value is None else value[:, rows] if name in OF_DRAWS else value[rows]
                for name, value in values.items()
            }
        )

    def with_recorded_history(self) -> Noise:
        """No clip's past is the model's own work: losses of differently trained models can be compared."""
        return replace(self, own=None)


class Draw:
    """Draws numbers on the generator's device, and gives them on another."""

    def __init__(self, generator: torch.Generator, device: torch.device) -> None:
        self.generator, self.device = generator, device

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.generator.device).to(self.device)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.generator.device).to(self.device)
