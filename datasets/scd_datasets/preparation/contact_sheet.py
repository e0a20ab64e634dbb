"""A picture of what every camera sees: the first, middle and last frame of a few episodes.

L frames of an episode, V cameras, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

EPISODES, GAP, HEAD = 4, 4, 16  # rows per camera; pixels between pictures, and above them for words
SMALLEST = 96  # pixels: smaller pictures are shown larger


def chosen(count: int) -> list[int]:
    """Gives the places of the episodes that are shown, spread over all of them."""
    return np.unique(np.linspace(0, count - 1, EPISODES).astype(int)).tolist()


def picked_frames(pixels: np.ndarray) -> np.ndarray:
    """Gives the first, middle and last of the frames (L, V, H, W, 3): (3, V, H, W, 3)."""
    return pixels[[0, len(pixels) // 2, -1]].copy()


def contact_sheet(cameras: Sequence[str], shown: dict[int, np.ndarray]) -> Image.Image:
    """Lays out a row per episode and three frames per camera, from episode → (3, V, H, W, 3)."""
    _, _, height, width, _ = next(iter(shown.values())).shape
    scale = max(1, round(SMALLEST / min(height, width)))
    height, width = height * scale, width * scale
    columns = 3 * len(cameras)
    size = (columns * (width + GAP) + GAP, len(shown) * (height + GAP + HEAD) + GAP + HEAD)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for i, camera in enumerate(cameras):
        pen.text((GAP + 3 * i * (width + GAP), 2), f"{camera}: first, middle, last", fill="black")
    for row, (episode, frames) in enumerate(shown.items()):
        top = HEAD + row * (height + GAP + HEAD)
        pen.text((GAP, top + 2), f"episode {episode}", fill="black")
        for column in range(columns):
            image = Image.fromarray(frames[column % 3, column // 3]).resize(
                (width, height), Image.Resampling.NEAREST
            )
            sheet.paste(image, (GAP + column * (width + GAP), top + HEAD))
    return sheet


def write_contact_sheet(path: Path, cameras: Sequence[str], shown: dict[int, np.ndarray]) -> None:
    """Writes it as PNG."""
    contact_sheet(cameras, shown).save(path)
