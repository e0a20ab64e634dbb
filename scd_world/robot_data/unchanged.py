"""How surely a place in a frame is what it was in another frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def unchanged(one: Tensor, other: Tensor, scale: Tensor) -> Tensor:
    """Gives exp(−(d / scale)²), (F, V, H, W) in [0, 1], of two frames (F, 3·V, H, W): d is the largest
    difference of a camera's three channels, a mean over those of 3 × 3 places that are in the image. scale ()
    or (V,)."""
    apart = (one - other).abs().unflatten(1, (-1, 3)).amax(2)
    around = F.avg_pool2d(apart, 3, 1, 1, count_include_pad=False)
    return torch.exp(-(around / scale[..., None, None]).square())
