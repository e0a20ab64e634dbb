"""What a step's rows imagined, in raw units, as it comes off the device: images there, numbers underway.

B rows, V cameras, H W pixels, S state size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from scd_world.world.transfer import HostCopy

FINITE = ("obs", "state", "reward", "success")  # what of a rollout's state has to be finite


class Numbers(NamedTuple):
    """The numbers of B rows on the host, float32."""

    state: np.ndarray  # (B, S) raw units
    reward: np.ndarray  # (B,) raw units
    success: np.ndarray  # (B,) probability
    uncertainty: np.ndarray  # (B,) error of the state to expect; NaN where no prior tells it


@dataclass(frozen=True)
class Readout:
    """What B rows imagined. All numbers come in one transfer, ahead of the images."""

    pixels: Tensor  # uint8 (B, V, H, W, 3) on the device
    packed: HostCopy  # float32 (B, 3 + 4 + S): success, reward, uncertainty, four times finite or not, state
    steps: int  # that the batch has taken

    def wait(self) -> Numbers:
        """Waits for the numbers. FloatingPointError, naming them, where rows imagined what is no number."""
        packed = self.packed.wait().numpy()
        success, reward, uncertainty, *finite = packed[:, : 3 + len(FINITE)].T
        check_rows(np.array(finite) > 0, self.steps)
        return Numbers(packed[:, 3 + len(FINITE) :], reward, success, uncertainty)


def check_rows(finite: np.ndarray, steps: int) -> None:
    """finite (4, B) bool: FloatingPointError, naming them, where rows imagined what is no number."""
    if not finite.all():
        wrong = {name: np.flatnonzero(~row).tolist() for name, row in zip(FINITE, finite, strict=True)}
        raise FloatingPointError(
            "; ".join(f"{name} of rows {rows} is not finite" for name, rows in wrong.items() if rows)
            + f" after {steps} steps: the world was trained to this, or bf16 is too coarse for it; "
            "reset these rows, and try precision='fp32'"
        )
