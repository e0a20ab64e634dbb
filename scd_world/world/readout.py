"""What a step's rows imagined, in raw units, as it comes off the device: images there, numbers underway.

B rows, V cameras, H W pixels, S state size, N numbers of what is found in the pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from scd_world.world.transfer import HostCopy


class Numbers(NamedTuple):
    """The numbers of B rows on the host, float32."""

    state: np.ndarray  # (B, S) raw units
    reward: np.ndarray  # (B,) raw units
    success: np.ndarray  # (B,) probability
    uncertainty: np.ndarray  # (B,) error of the state to expect; NaN where no prior tells it
    image_uncertainty: np.ndarray  # (B,) of the picture, share of its range; 1 where no filter tells it
    objects: np.ndarray  # (B, N) px: where what was found by sight is


@dataclass(frozen=True)
class Readout:
    """What B rows imagined. All numbers come in one transfer, ahead of the images."""

    pixels: Tensor  # uint8 (B, V, H, W, 3) on the device
    # float32 (B, 5 + S + N): success, reward, both uncertainties, sum of the model's frame, state, objects
    packed: HostCopy
    state_size: int  # S
    steps: int  # that the batch has taken

    def wait(self) -> Numbers:
        """Waits for the numbers. FloatingPointError, naming them, where rows imagined what is no number."""
        numbers, wrong = self.wait_for_all()
        if wrong:
            raise not_finite(wrong, self.steps)
        return numbers

    def wait_for_all(self) -> tuple[Numbers, dict[str, np.ndarray]]:
        """Waits for the numbers; and of what is not finite, in which rows, (B,) bool."""
        packed = self.packed.wait().numpy()
        (success, reward, uncertainty, image_uncertainty, frame), state = packed[:, :5].T, packed[:, 5:]
        values = {"obs": frame, "state": state, "reward": reward, "success": success}
        wrong = {name: ~np.isfinite(v).reshape(len(v), -1).all(1) for name, v in values.items()}
        state, objects = np.split(state, [self.state_size], axis=1)
        numbers = Numbers(state, reward, success, uncertainty, image_uncertainty, objects)
        return numbers, {name: rows for name, rows in wrong.items() if rows.any()}


def not_finite(wrong: Mapping[str, np.ndarray], steps: int) -> FloatingPointError:
    """Gives the error of what is not finite, by name, in which rows, (B,) bool."""
    named = (f"{name} of rows {np.flatnonzero(rows).tolist()} is not finite" for name, rows in wrong.items())
    return FloatingPointError(
        f"{'; '.join(named)} after {steps} steps: the world was trained to this, or bf16 is too coarse for "
        "it; reset these rows, and try precision='fp32'"
    )
