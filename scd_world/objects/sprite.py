"""An object that looks the same wherever it lies: its picture, drawn at a pose.

A *sprite* covers what lies behind it: with its color c and its cover a (RGBA, c multiplied by a already), a
pixel in front of a background B is c + (1 − a) · B. Its pose in an image is the row and column of its middle
and its turn.

F frames, K side of a crop, N side of the sprite's own picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

FINER = 1.5  # pixels of a sprite's picture per pixel of the image


@dataclass(frozen=True)
class Sprite:
    """What one object looks like to one camera."""

    image: Tensor  # (4, N, N): color in [-1, 1] times cover, cover in [0, 1]
    radius: float  # px: the picture's half side; what lies farther from its middle is not drawn
    turns: bool  # whether its turn can be told

    @property
    def half(self) -> int:
        """Half the side of the crop that holds it, px."""
        return math.ceil(self.radius) + 1

    @property
    def free(self) -> int:
        """How many numbers of a pose can be told."""
        return 3 if self.turns else 2

    def to(self, device: torch.device | str) -> Sprite:
        return replace(self, image=self.image.to(device))


def in_own_frame(pose: Tensor, at: Tensor) -> Tensor:
    """Where pixels at (F, 2, K, K) are on the object at pose (F, 3): (F, 2, K, K), px from its middle."""
    y, x = (at - pose[:, :2, None, None]).unbind(1)
    cos, sin = pose[:, 2, None, None].cos(), pose[:, 2, None, None].sin()
    return torch.stack([cos * y + sin * x, cos * x - sin * y], 1)


def sample(picture: Tensor, own: Tensor, radius: float) -> Tensor:
    """What a picture (D, N, N) of half side `radius` shows at `own` (F, 2, K, K), px: (F, D, K, K), 0 outside
    of the circle that fits in."""
    where = (own.flip(1) / radius).movedim(1, -1)
    drawn = F.grid_sample(
        picture[None].expand(len(own), -1, -1, -1), where, padding_mode="border", align_corners=False
    )
    return drawn * (own.square().sum(1, keepdim=True) < radius**2)


def draw(sprite: Sprite, pose: Tensor, at: Tensor, behind: Tensor) -> Tensor:
    """Draws it at pose (F, 3) before `behind` (F, 3, K, K), whose pixels are at (F, 2, K, K)."""
    color, cover = sample(sprite.image, in_own_frame(pose, at), sprite.radius).split([3, 1], 1)
    return color + (1 - cover) * behind


def with_slopes(sprite: Sprite) -> Tensor:
    """Gives its picture with its slopes along rows and columns, per px: (12, N, N)."""
    image = sprite.image
    per_px = image.shape[-1] / (2 * sprite.radius)
    padded = F.pad(image[None], (1, 1, 1, 1), mode="replicate")[0]
    along_rows = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    along_columns = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    return torch.cat([image, along_rows * (per_px / 2), along_columns * (per_px / 2)])
