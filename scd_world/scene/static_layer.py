"""The static layer: what stays of a shown frame when the robot moves on; and how high it stands.

The renderer's parts are drawn over it, as layers ("Representing moving images with layers", Wang and Adelson,
IEEE Transactions on Image Processing 1994). Told by numbers where a block lies, and by the arm, which in
recordings always goes for it, a renderer believes the arm: it moved the block with any joint
(docs/cameras.md 21). The layer knows better.

F frames, V cameras, C = 3·V channels, H W frame.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scd_world.model.layers import zero_init


class Surroundings(nn.Module):
    """Tells something of each cell of a shown frame by what is around it, and what is usual there:
    convolutions that see nine cells around. At first it tells 0."""

    def __init__(self, channels: int, told: int, width: int = 32) -> None:
        """channels: C; told: how many numbers of each cell."""
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(inputs, width, 3, padding=apart, dilation=apart)
            for inputs, apart in ((2 * channels, 1), (width, 2), (width, 4), (width, 1))
        )
        self.out = zero_init(nn.Conv2d(width, told, 3, padding=1))

    def told_of(self, shown: Tensor, background: Tensor) -> Tensor:
        """shown (F, C, H, W), background (1, C, H, W) → (F, told, H, W)."""
        h = torch.cat([shown, shown - background], dim=1)
        for layer in self.layers:
            h = F.gelu(layer(h))
        return self.out(h).float()


class StaticLayer(Surroundings):
    """Gives of a frame what stays when the robot moves on: a gate per cell between that frame, and what is
    guessed of the background that the robot covers."""

    def __init__(self, channels: int) -> None:
        """channels: C."""
        super().__init__(channels, channels // 3 + channels)

    def forward(self, shown: Tensor, background: Tensor) -> Tensor:
        """shown (F, C, H, W), background (1, C, H, W) → what stays, (F, C, H, W)."""
        channels = shown.shape[1]
        gate, guessed = self.told_of(shown, background).tensor_split([channels // 3], dim=1)
        gate = torch.sigmoid(gate).repeat_interleave(3, dim=1)
        return gate * shown + (1 - gate) * (background + guessed)


class Heights(Surroundings):
    """Gives of a frame how high what is seen in each cell stands over the plane that most of it lies in.

    By convolutions of its own: while a renderer learned, those that it shared with the static layer lost half
    of what they had told (docs/cameras.md 31).
    """

    def __init__(self, channels: int) -> None:
        """channels: C."""
        super().__init__(channels, channels // 3)

    def forward(self, shown: Tensor, background: Tensor) -> Tensor:
        """shown (F, C, H, W), background (1, C, H, W) → (F, V, H, W) in (-1, 1), as shares of the plane's
        distance."""
        return torch.tanh(self.told_of(shown, background))
