"""Frames beside what is expected in them, and pieces cut out of both.

F frames, H W pixels, K side of a crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Scenes:
    """Frames, and what is expected in each if none of the sought objects were there."""

    frames: Tensor  # (F, 3, H, W) in [-1, 1]
    expected: Tensor  # (F or 1, 3, H, W): the background, and the robot where it should be
    robot: Tensor  # (F or 1, 1, H, W) bool: where the robot may be in front

    def __len__(self) -> int:
        return len(self.frames)

    def rows(self, rows: Tensor) -> Scenes:
        return Scenes(self.frames[rows], chosen(self.expected, rows), chosen(self.robot, rows))

    def smaller(self, factor: int) -> Scenes:
        """The same with sides that are so many times smaller."""
        if factor == 1:
            return self
        frames, expected = (F.avg_pool2d(x, factor) for x in (self.frames, self.expected))
        return Scenes(frames, expected, F.max_pool2d(self.robot.float(), factor) > 0.5)


def chosen(images: Tensor, rows: Tensor) -> Tensor:
    return images if len(images) == 1 else images[rows]


@dataclass(frozen=True)
class Crops:
    """The surroundings of a place in each frame, and where its pixels are."""

    frames: Tensor  # (F, 3, K, K)
    expected: Tensor  # (F, 3, K, K)
    robot: Tensor  # (F, 1, K, K) bool
    inside: Tensor  # (F, 1, K, K) bool: of the image
    at: Tensor  # (F, 2, K, K) row and column of each pixel's middle, px


def crops(scenes: Scenes, middle: Tensor, half: int) -> Crops:
    """Cuts the square of 2 · half pixels about middle (F, 2), px, out of each frame."""
    count, (H, W), device = len(middle), scenes.frames.shape[-2:], middle.device
    corner = (middle - half).round().long()
    rows, columns = (corner[:, i, None] + torch.arange(2 * half, device=device) for i in (0, 1))
    inside = ((rows >= 0) & (rows < H))[:, :, None] & ((columns >= 0) & (columns < W))[:, None]
    y, x = rows.clamp(0, H - 1)[:, :, None], columns.clamp(0, W - 1)[:, None]

    def cut(images: Tensor) -> Tensor:
        which = torch.arange(count, device=device) if len(images) > 1 else torch.zeros(1, dtype=torch.long)
        return images.movedim(1, -1)[which[:, None, None], y, x].movedim(-1, 1)

    at = torch.stack(torch.broadcast_tensors(rows[:, :, None], columns[:, None]), 1) + 0.5
    return Crops(cut(scenes.frames), cut(scenes.expected), cut(scenes.robot), inside[:, None], at)
