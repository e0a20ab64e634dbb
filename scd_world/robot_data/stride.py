"""A recording read at a lower rate: how many of its frames are a step, and which of their actions is its."""

from __future__ import annotations

from dataclasses import dataclass

LAST, MEAN = "last", "mean"
SAME_RATE = 1e-3  # of a rate: 29.97 / 3 and 9.99 are one


@dataclass(frozen=True)
class Stride:
    """Makes one step of `frames` recorded ones; of their actions the `last` or the `mean` is the step's."""

    frames: int
    action: str


def stride_between(recorded: float, wanted: float) -> int:
    """Gives how many frames recorded at one rate are a step at the other; 1 where no whole number is."""
    frames = max(1, round(recorded / wanted))
    return frames if abs(recorded / wanted / frames - 1) <= SAME_RATE else 1
