"""What kind of picture an array holds, told from its shape, its values' type and its name; and RGB of it.

A cast to uint8 makes a white image of depth in millimetres and a black one of gray levels from 0 to 1: what
values mean is found out first.

L frames, h w pixels of a frame, c channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

Kind = Literal["rgb", "rgba", "gray", "depth", "labels"]
LEFT_OUT = ("depth", "labels")  # no camera: a world predicts colors
CHANNELS = (1, 3, 4)
SMALLEST = 8  # px: a shorter side is no picture's, but that of a matrix or a list of points
NO_COLORS = {"depth": "depth", "segmentation": "labels"}  # by name, whatever the values look like
HALF_A_LEVEL = 0.5  # of 255: what rounding forgives
ONE = 1 + HALF_A_LEVEL / 255


def picture_kind(dtype: np.dtype | type, shape: Sequence[int], name: str = "") -> Kind | None:
    """Says what one frame of this shape, (h, w), (h, w, c) or (c, h, w), holds; None where it is no picture.

    One channel is gray as uint8, labels as bool or as large integers, and depth as uint16 or floats. Floats
    without an axis for channels may be anything, and are depth only where `name` says so.
    """
    dtype, layout = np.dtype(dtype), frame_layout(shape)
    if layout is None or dtype.kind not in "uifb":
        return None
    for word, kind in NO_COLORS.items():
        if word in name.lower():
            return kind  # type: ignore[return-value]
    channels = layout[2]
    if channels > 1:
        return None if dtype.kind == "b" else "rgb" if channels == 3 else "rgba"
    if dtype == np.uint8:
        return "gray"
    if dtype == np.uint16 or (dtype.kind == "f" and len(shape) == 3):
        return "depth"
    return "labels" if dtype.kind in "uib" else None


def frame_layout(shape: Sequence[int]) -> tuple[int, int, int] | None:
    """Gives (h, w, c) of a frame, channels last, first or none (c = 1); None where that is no picture."""
    if len(shape) == 2:
        h, w, c = (*shape, 1)
    elif len(shape) == 3 and shape[2] in CHANNELS:
        h, w, c = shape
    elif len(shape) == 3 and shape[0] in CHANNELS:
        c, h, w = shape
    else:
        return None
    return (h, w, c) if min(h, w) >= SMALLEST else None


def value_scale(frames: Iterable[np.ndarray]) -> float:
    """Gives what the values of a camera are multiplied by to be 0…255: 255 where all frames of a sample are
    floats from 0 to 1, else 1.

    Raises ValueError, with what to do, for values of another range.
    """
    low, high, floats = np.inf, -np.inf, False
    for frame in frames:
        if frame.dtype != np.uint8 and frame.size:
            # min and max hand on NaN, and check_range refuses it
            low, high = np.minimum(low, frame.min()), np.maximum(high, frame.max())
            floats = floats or frame.dtype.kind == "f"
    if high < low:  # nothing to look at
        return 1.0
    scale = 255.0 if floats and 0 < high <= ONE else 1.0
    check_range(float(low), float(high), scale)
    return scale


def check_range(low: float, high: float, scale: float) -> None:
    """Raises ValueError, with what to do, for values that do not become 0…255 by `scale`."""
    if low * scale >= -HALF_A_LEVEL and high * scale <= 255 + HALF_A_LEVEL:  # false for NaN
        return
    cure = "store them as uint8"
    if low < 0:
        cure += "; −1…1 becomes 127.5 (x + 1)"
    elif high > 255:
        cure += "; 16-bit colors are divided by 257"
    raise ValueError(
        f"holds values from {low:g} to {high:g}, expected gray levels 0…255 or floats 0…1: {cure}"
    )


def to_rgb(frames: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Gives uint8 (L, h, w, 3) of the frames (L, h, w), (L, h, w, c) or (L, c, h, w) of a camera.

    scale: of all its frames, by `value_scale`. A gray one is shown in three equal channels, of RGBA the alpha
    is left out. Raises ValueError for values of another range.
    """
    if frames.ndim == 3:
        frames = frames[..., None]
    elif frames.shape[-1] not in CHANNELS:
        frames = np.moveaxis(frames, 1, -1)
    if frames.dtype != np.uint8:
        frames = _to_levels(frames, scale)
    return np.repeat(frames, 3, axis=-1) if frames.shape[-1] == 1 else frames[..., :3]


def _to_levels(frames: np.ndarray, scale: float) -> np.ndarray:
    """Gives the gray levels uint8 that the values mean."""
    if not frames.size:
        return frames.astype(np.uint8)
    low, high = float(frames.min()), float(frames.max())
    check_range(low, high, scale)
    if frames.dtype.kind == "f" and scale == 1 and 0 < high <= ONE:
        raise ValueError(
            f"holds values up to {high:g}, other frames of this camera 0…255: multiply these by 255"
        )
    levels = np.rint(frames if scale == 1 else frames * scale)
    if low < 0 or high * scale > 255:  # by less than rounding forgives
        levels = levels.clip(0, 255)
    return levels.astype(np.uint8)
