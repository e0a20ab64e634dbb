"""What draws a state: a picture of the next frame, as far as the state alone tells it.

Two kinds: parts that keep their looks and change their places (`parts.py`), for pixels and few things that
move; convolutions (`convolutional.py`), for a robot of many joints, and for latents. Run once per frame,
pretrained before the rest (`fit.py`), and held from then on; the decoder's last layer gets the drawing beside
the last frame (`model/pixel_heads.py`).

F frames, S state, C channels (3 per camera), H W frame.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from scd_world.renderers.config import RendererPretrainConfig


class Renderer(nn.Module, ABC):
    lr_ratio: ClassVar[float] = 1.0  # of the learning rate

    @abstractmethod
    def forward(self, state: Tensor) -> Tensor:
        """Draws states (F, S) in model units as frames (F, C, H, W) in about [-1, 1]."""

    @property
    @abstractmethod
    def background(self) -> Tensor:
        """(1, C, H, W) what is drawn before anything is learnt."""

    @abstractmethod
    def loss(
        self, state: Tensor, obs: Tensor, config: RendererPretrainConfig, generator: torch.Generator
    ) -> Tensor:
        """Gives how far the drawing of (F, S) is from frames (F, C, H, W)."""

    def slow_parameters(self) -> list[nn.Parameter]:
        """Lists those that have to learn at a lower rate."""
        return []
