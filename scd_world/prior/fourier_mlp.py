"""The networks of the prior's dynamics: residual layers on learnt Fourier features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
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


class ParallelFourierMLPs(nn.Module):
    """n such networks side by side, each with inputs and weights of its own: one batched product a layer."""

    def __init__(self, n: int, size: int, width: int, layers: int) -> None:
        super().__init__()

        def normal(inputs: int, outputs: int, std: float) -> nn.Parameter:
            return nn.Parameter(std * torch.randn(n, inputs, outputs))

        self.fourier = normal(size, width, 0.5)
        self.phase = nn.Parameter(torch.pi * (2 * torch.rand(n, 1, width) - 1))
        self.embed = normal(size + width, width, (size + width) ** -0.5)
        self.up = nn.ParameterList(normal(width, 2 * width, width**-0.5) for _ in range(layers))
        self.down = nn.ParameterList(normal(2 * width, width, 0.0) for _ in range(layers))
        self.out = normal(width, 1, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """x (…, n, size) → (…, n)"""
        rows = x.flatten(0, -3).transpose(0, 1)  # (n, rows, size)
        h = torch.cat([rows, torch.baddbmm(self.phase, rows, self.fourier).sin()], dim=-1) @ self.embed
        for up, down in zip(self.up, self.down, strict=True):
            h = h + F.gelu(layer_norm(h) @ up) @ down
        return (layer_norm(h) @ self.out)[..., 0].T.unflatten(0, x.shape[:-2])


def layer_norm(h: Tensor) -> Tensor:
    return F.layer_norm(h, h.shape[-1:])
