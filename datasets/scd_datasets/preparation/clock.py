"""The robot's clock against the frame rate that a dataset declares.

L steps of an episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TIME_TOLERANCE = 1e-3  # s; timestamps are float32
MAX_GAP = 5  # steps: a longer pause between two rows is damage, whatever the clock
BY_ROWS = "data.clock=index"  # the setting by which a row is a step, whatever the clock says
RATE_TOLERANCE = 0.02  # share by which the measured rate may differ from the declared one without a word


@dataclass(frozen=True)
class MeasuredRate:
    """Holds how fast the rows of a recording follow one another, by their timestamps."""

    fps: float  # 1 / the median step
    jitter: float  # standard deviation of the steps, as a share of their mean
    shortest: float  # s
    longest: float  # s

    def __str__(self) -> str:
        steps = f"steps of {self.shortest:.3f} … {self.longest:.3f} s"
        return f"{self.fps:.4g} Hz measured, {steps}, jitter {self.jitter:.1%}"


def measured_rate(timestamps: Sequence[np.ndarray]) -> MeasuredRate | None:
    """Measures the rate by each episode's timestamps (L,) in s; None where no two rows follow each other."""
    steps = np.concatenate([np.zeros(0), *(np.diff(one.astype(np.float64)) for one in timestamps)])
    steps = steps[np.isfinite(steps) & (steps > 0)]
    if not len(steps):
        return None
    jitter = float(steps.std() / steps.mean())
    return MeasuredRate(float(1 / np.median(steps)), jitter, float(steps.min()), float(steps.max()))


def timestamp_error(timestamps: np.ndarray, fps: float, in_order: bool = False) -> str | None:
    """Says what is wrong with an episode's timestamps (L,) in s, if anything.

    in_order: a row is a step, however long it took: only a pause of more than MAX_GAP steps is wrong.
    """
    steps = np.diff(timestamps)
    if in_order:
        return _pause(np.nan_to_num(steps, nan=0.0, posinf=np.inf), fps)
    if not np.isfinite(timestamps).all():
        return f"the timestamp is not finite at frame {np.argmin(np.isfinite(timestamps))}"
    if (steps <= 0).any():
        return f"the timestamp goes back after frame {np.argmax(steps <= 0)}"
    late = np.abs(steps - 1 / fps) > TIME_TOLERANCE
    if not late.any():  # nor has an episode of one frame any step
        return None
    i = int(np.argmax(late))
    what = f"frames {i} and {i + 1} are {steps[i]:.4f} s apart, expected {1 / fps:.4f} s"
    if _pause(steps, fps) is None:
        what += f" ({measured_rate([timestamps])}; {BY_ROWS} takes each row as a step)"
    return what


def _pause(steps: np.ndarray, fps: float) -> str | None:
    """Names the first pause, of steps (L - 1,) in s, that no clock explains."""
    paused = steps > MAX_GAP / fps
    if not paused.any():
        return None
    i = int(np.argmax(paused))
    return f"frames {i} and {i + 1} are {steps[i]:.2f} s apart, more than {MAX_GAP} steps of {1 / fps:.3f} s"
