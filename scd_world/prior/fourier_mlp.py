"""The network of the prior's dynamics: residual layers on learnt Fourier features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scd_world.model.layers import zero_init
from scd_world.utils.precision import half_precision


class FourierMLP(nn.Module):
    """Learns fine structure soonest: contact is a matter of half a pixel between two things."""

    def __init__(self, size: int, out: int, width: int, layers: int) -> None:
        super().__init__()
        self.fourier = nn.Linear(size, width)
        nn.init.normal_(self.fourier.weight, std=0.5)
        nn.init.uniform_(self.fourier.bias, -torch.pi, torch.pi)
        self.embed = nn.Linear(size + width, width)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 2 * width),
                nn.GELU(),
                zero_init(nn.Linear(2 * width, width)),
            )
            for _ in range(layers)
        )
        self.out = nn.Sequential(nn.LayerNorm(width), zero_init(nn.Linear(width, out)))

    def forward(self, x: Tensor, bf16: bool = False) -> Tensor:
        h = self.embed(torch.cat([x, self.fourier(x).sin()], dim=-1))
        with half_precision(x, bf16):
            for layer in self.layers:
                h = h + layer(h)
        return self.out(h)
