"""The scene representation: a few numbers that tell of a shown frame what no state does.

Learnt with the renderer, so that other frames of the same episode can be drawn ("Neural scene representation
and rendering", Eslami et al., Science 2018): the light, the table, where things lie.

F frames, S state, Z scene representation, C H W frame.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SceneEncoder(nn.Module):
    """Reads a scene representation off a frame and the state there."""

    def __init__(self, size: int, frame: torch.Size, features: int, channels: int = 48) -> None:
        """size: S; frame: (C, H, W); features: Z."""
        super().__init__()
        C, *sides = frame
        self.layers = nn.ModuleList()
        for inputs in (C, channels, channels):
            self.layers.append(nn.Conv2d(inputs, channels, 3, stride=2, padding=1))
            sides = [(n + 1) // 2 for n in sides]
        self.mlp = nn.Sequential(
            *(nn.Linear(channels * sides[0] * sides[1] + size, 256), nn.GELU()),
            *(nn.Linear(256, 128), nn.GELU()),
            nn.Linear(128, features),
        )

    def forward(self, frame: Tensor, state: Tensor) -> Tensor:
        """frame (F, C, H, W) in [-1, 1], state (F, S) → (F, Z) in (-1, 1)."""
        for layer in self.layers:
            frame = F.gelu(layer(frame))
        return torch.tanh(self.mlp(torch.cat([frame.flatten(1), state], dim=-1)).float())
