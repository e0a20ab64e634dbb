"""I3D, the video network whose logits FVD compares.

Parameters are named as in the public Kinetics-400 weights of pytorch-i3d.
B videos, T frames; videos are (B, 3, T, 224, 224) in [-1, 1]. Carreira & Zisserman, arXiv 1705.07750.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# channels in; of the four branches: 1×1, 3×3 (its input, output), 3×3 (likewise), pooled 1×1
MIXED = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}
POOLS = {"Mixed_4b": ((3, 3, 3), (2, 2, 2)), "Mixed_5b": ((2, 2, 2), (2, 2, 2))}  # before these


class I3D(nn.Module):
    """Inflated 3D Inception network."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = Unit(64, 64, 1)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        for name, (channels, branches) in MIXED.items():
            self.add_module(name, Mixed(channels, branches))
        self.logits = nn.ModuleDict({"conv3d": nn.Conv3d(1024, 400, 1)})

    def forward(self, video: Tensor) -> Tensor:
        """Classifies (B, 3, T, 224, 224), T ≥ 10: (B, 400) logits, mean over time."""
        x = pool(self.Conv3d_1a_7x7(video), (1, 3, 3), (1, 2, 2))
        x = pool(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        for name in MIXED:
            if name in POOLS:
                x = pool(x, *POOLS[name])
            x = self.get_submodule(name)(x)
        x = F.avg_pool3d(x, (2, 7, 7), stride=1)
        return self.logits["conv3d"](x).mean((2, 3, 4))


class Unit(nn.Module):
    """Convolution padded as TensorFlow does, batch norm, ReLU."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(channels, out, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        x = pad_same(x, self.conv3d.kernel_size, self.conv3d.stride)
        return F.relu(self.bn(self.conv3d(x)))


class Mixed(nn.Module):
    """Four branches side by side, their channels concatenated."""

    def __init__(self, channels: int, branches: tuple[int, ...]) -> None:
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = branches
        self.b0 = Unit(channels, b0, 1)
        self.b1a, self.b1b = Unit(channels, b1a, 1), Unit(b1a, b1b, 3)
        self.b2a, self.b2b = Unit(channels, b2a, 1), Unit(b2a, b2b, 3)
        self.b3b = Unit(channels, b3b, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.b3b(pool(x, (3, 3, 3), (1, 1, 1)))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), pooled], dim=1)


def pool(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    return F.max_pool3d(pad_same(x, kernel, stride), kernel, stride)


def pad_same(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Pads as TensorFlow's SAME: zeros for ceil(size / stride) outputs, the odd one at the end."""
    pads: list[int] = []
    for size, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        total = max(k - (s if size % s == 0 else size % s), 0)
        pads = [total // 2, total - total // 2, *pads]
    return F.pad(x, pads)
