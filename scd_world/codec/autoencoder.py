"""The network of a learnt codec: frames to latents and back, all convolutions, so that any size will do.

Three numbers stand for 4 × 4 pixels of three colors: a latent is like a small image, a quarter as high and
wide, and all that works on frames works on latents.

F frames, H W pixels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from scd_world.codec.config import SHRINK


class Autoencoder(nn.Module):
    """Frames (F, 3, H, W) ↔ latents (F, 3, H/4, W/4), both in [-1, 1]; H and W are multiples of 4."""

    def __init__(self, width: int) -> None:
        """width: channels of all layers but the ends."""
        super().__init__()
        pixels = 3 * SHRINK**2
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(SHRINK),
            nn.Conv2d(pixels, width, 3, padding=1),
            *(Residual(width) for _ in range(2)),
            nn.Conv2d(width, 3, 1),
            nn.Tanh(),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            *(Residual(width) for _ in range(4)),
            nn.Conv2d(width, pixels, 3, padding=1),
            nn.PixelShuffle(SHRINK),
        )

    def encode(self, frames: Tensor) -> Tensor:
        return self.encoder(frames)

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(latents)


class Residual(nn.Module):
    """Adds what a 3 × 3 convolution of the normalized features says, (F, c, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.look = nn.Conv2d(channels, channels, 3, padding=1)
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(F.gelu(self.look(self.norm(x))))
