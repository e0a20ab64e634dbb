"""A renderer for robots of many joints, and for latents: from the state a coarse picture, then convolutions.

Where a hand of twenty joints is in a picture no few frames of reference tell. Nor are things in latents what
parts could be: a cell holds what eight pixels show.

F frames, S state, C channels, H W frame.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scd_world.model.layers import zero_init
from scd_world.renderers.config import RendererPretrainConfig
from scd_world.renderers.renderer import Renderer

HALVINGS = 3  # from the frame to the coarse picture
WAVES, HIDDEN = 128, 256
FINENESS = 3.0  # radians, about, over the range of a state


class ConvRenderer(Renderer):
    lr_ratio = 0.2

    def __init__(self, size: int, background: Tensor, channels: int) -> None:
        """size: S; background (C, H, W) in [-1, 1]; channels: of the convolutions at full resolution."""
        super().__init__()
        C, *frame = background.shape
        self.sizes = [[-(-n // 2**i) for n in frame] for i in range(HALVINGS, -1, -1)]  # coarse to fine
        self.fourier = nn.Linear(size, WAVES)
        nn.init.normal_(self.fourier.weight, std=2 * FINENESS * size**-0.5)
        nn.init.uniform_(self.fourier.bias, -torch.pi, torch.pi)
        coarse = 2 * channels
        self.mlp = nn.Sequential(
            *(nn.Linear(size + WAVES, HIDDEN), nn.GELU()),
            *(nn.Linear(HIDDEN, HIDDEN), nn.GELU()),
            nn.Linear(HIDDEN, coarse * self.sizes[0][0] * self.sizes[0][1]),
        )
        widths = [coarse, coarse, channels, channels]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inside, outside, 3, padding=1)
            for inside, outside in zip([coarse, *widths], widths, strict=False)
        )
        self.draw = zero_init(nn.Conv2d(channels, C, 3, padding=1))
        self.register_buffer("background_frame", background[None].clone(), persistent=False)

    @property
    def background(self) -> Tensor:
        return self.get_buffer("background_frame")

    def forward(self, state: Tensor) -> Tensor:
        out = self.mlp(torch.cat([state, self.fourier(state).sin()], dim=-1))
        out = out.unflatten(1, (-1, *self.sizes[0]))
        for size, convolution in zip(self.sizes, self.convolutions, strict=True):
            if out.shape[-2:] != torch.Size(size):
                out = F.interpolate(out, size, mode="bilinear", align_corners=False)
            out = F.gelu(convolution(out))
        return self.background + self.draw(out).float()

    def loss(
        self, state: Tensor, obs: Tensor, config: RendererPretrainConfig, generator: torch.Generator
    ) -> Tensor:
        """Mean square error: no cell is more than another where all have a variance of one."""
        return F.mse_loss(self(state), obs)
