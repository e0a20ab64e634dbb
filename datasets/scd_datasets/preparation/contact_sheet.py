"""A picture of what every camera sees: the first, middle and last frame of a few episodes.

L frames of an episode, V cameras, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from scd_world.reporting.video import Panel, compose

EPISODES = 4  # rows of the sheet
HEIGHT = 96  # pixels of a picture: smaller ones are shown larger
MOMENTS = ("first", "middle", "last")


def chosen(count: int) -> list[int]:
    """Gives the places of the episodes that are shown, spread over all of them."""
    return np.unique(np.linspace(0, count - 1, EPISODES).astype(int)).tolist()


def picked_frames(pixels: np.ndarray) -> np.ndarray:
    """Gives the first, middle and last of the frames (L, V, H, W, 3): (3, V, H, W, 3)."""
    return pixels[[0, len(pixels) // 2, -1]].copy()


def write_contact_sheet(path: Path, cameras: Sequence[str], shown: dict[int, np.ndarray]) -> None:
    """Writes a row per episode and three frames per camera as PNG, from episode → (3, V, H, W, 3)."""
    rows = [
        [Panel(frame) for camera in range(len(cameras)) for frame in frames[:, camera]]
        for frames in shown.values()
    ]
    names, note = [f"episode {episode}" for episode in shown], f"from left: {', '.join(cameras)}"
    Image.fromarray(compose(rows, MOMENTS * len(cameras), names, note, HEIGHT)).save(path)
