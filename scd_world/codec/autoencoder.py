"""The network of a learnt codec: frames to latents and back, all convolutions, so that any size will do.

Twelve numbers stand for 8 × 8 pixels of three colors, laid out as 3 channels of 2 × 2 cells: a latent
is then like a small image, a quarter as high and wide, and all that works on frames works on latents.

F frames, H W pixels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

LATENT = 12  # numbers per 8 × 8 pixels


class Autoencoder(nn.Module):
    """Frames (F, 3, H, W) ↔ latents (F, 3, H/4, W/4), both in [-1, 1]; H and W are multiples of 8."""

    def __init__(self, width: int) -> None:
        """width: channels at a quarter of the resolution; at an eighth there are twice as many."""
        super().__init__()
        w = width
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, w, 3, padding=1),
            Residual(w),
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * w, 2 * w, 1),
            Residual(2 * w),
            Residual(2 * w),
            nn.Conv2d(2 * w, LATENT, 1),
            nn.PixelShuffle(2),
            nn.Tanh(),
        )
        self.decoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(LATENT, 2 * w, 3, padding=1),
            Residual(2 * w),
            Residual(2 * w),
            nn.Conv2d(2 * w, 4 * w, 1),
            nn.PixelShuffle(2),
            Residual(w),
            Residual(w),
            nn.Conv2d(w, 48, 3, padding=1),
            nn.PixelShuffle(4),
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
