"""How far two frames are apart, and how sharp they are: PSNR, SSIM, changed pixels, sharpness, spread.

B frames, C channels (3 per camera), H W pixels. Frames are (B, C, H, W) in [-1, 1].
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor

# Eight bits round by up to half a gray level: a mean square error below 1/12 level² cannot be known. Without
# this floor one motionless window gives copy-last an infinite mean.
ROUNDING = (2 / 255) ** 2 / 12
WINDOW = torch.exp(-(torch.arange(-5.0, 6.0) ** 2) / (2 * 1.5**2))  # SSIM's
WINDOW /= WINDOW.sum()
TIE = 0.01  # dB: below it two frames are equally good, whatever rounding says
VISIBLE = 1.0  # gray levels: a smaller change is none on any screen
PSNR_CAP = 10 * np.log10(4 / ROUNDING)  # 58.9 dB


def psnr(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Computes 10·log10(2² / mse), (B,) in dB, at most PSNR_CAP.

    mask: (B, C, H, W) bool, the values that count; NaN where it is empty.
    """
    square = (x - y).square()
    if mask is None:
        mse = reduce(square, "b c h w -> b", "mean")
    else:
        total = reduce(square * mask, "b c h w -> b", "sum")
        mse = total / reduce(mask.float(), "b c h w -> b", "sum")  # 0/0 is NaN: nothing to say
    return 10 * torch.log10(4 / mse.clamp_min(ROUNDING))


def changed_pixels(truth: Tensor, reference: Tensor, threshold: float) -> Tensor:
    """Marks pixels with a color that differs from the reference by more than `threshold` gray levels of 255.

    Gives (B, C, H, W) bool, equal over the three channels of a camera.
    """
    differs = (truth - reference).abs() > threshold * 2 / 255
    pixels = rearrange(differs, "b (v c) h w -> b v c h w", c=3).any(2)
    return repeat(pixels, "b v h w -> b (v c) h w", c=3)


def largest_change(x: Tensor, y: Tensor) -> Tensor:
    """Measures the largest difference of any value, (B,) in gray levels of 255."""
    return reduce((x - y).abs(), "b c h w -> b", "max") * 127.5


def sharpness(x: Tensor) -> Tensor:
    """Averages absolute differences of neighboring pixels, (B,) in gray levels: a frame's gradient energy.

    The mean over all channels of each pixel and its right neighbor, that of each and its lower one, and the
    mean of both. A blur lowers it, grain raises it.
    """
    right, down = (reduce(x.diff(dim=dim).abs(), "b c h w -> b", "mean") for dim in (-1, -2))
    return (right + down) / 2 * 127.5


def texture_error(x: Tensor, y: Tensor, neighborhood: int) -> Tensor:
    """Measures how far absolute differences of neighboring pixels are from each other's on the average of
    each neighborhood, a square of so many pixels or of a whole side that is shorter, (B,) in the units of x
    and y: 0 where texture is as strong, wherever in its neighborhood it lies."""
    off = []
    for dim in (-2, -1):
        found, wanted = (image.diff(dim=dim).abs() for image in (x, y))
        sides = [min(neighborhood, side) for side in found.shape[-2:]]
        error = F.avg_pool2d(found, sides) - F.avg_pool2d(wanted, sides)
        off.append(reduce(error.abs(), "b c h w -> b", "mean"))
    return off[0] + off[1]


def spread(x: Tensor, mask: Tensor) -> Tensor:
    """Measures how far each of R drawings of the same frames is from the others, (R, B) in gray levels.

    Mean absolute differences over all pairs of drawings x (R, B, C, H, W) and over the values that count,
    mask (B, C, H, W) bool; NaN where it is empty. R is at least 2.
    """
    R, count = len(x), reduce(mask.float(), "b c h w -> b", "sum")
    apart = [reduce((x - one).abs() * mask, "r b c h w -> b", "sum") / count for one in x]
    return torch.stack(apart) / (R - 1) * 127.5


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Computes structural similarity, (B,) (Wang et al. 2004: Gaussian window of 11 pixels, σ = 1.5).

    Of values in [0, 1]: its luminance term has no meaning for negative ones. Equal to torchmetrics' (a test
    says so) without the seconds that its import takes. NaN for frames smaller than half a window.
    """
    if min(x.shape[-2:]) <= len(WINDOW) // 2:
        return torch.full((len(x),), torch.nan, device=x.device)
    x, y = (x + 1) / 2, (y + 1) / 2
    mx, my = blur(x), blur(y)
    vx, vy = (blur(x * x) - mx * mx).clamp_min(0), (blur(y * y) - my * my).clamp_min(0)
    vxy = blur(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return reduce(similarity, "b c h w -> b", "mean")


def blur(x: Tensor) -> Tensor:
    """Averages around every pixel with a Gaussian, the frame reflected at its borders: rows, then columns."""
    C, window, half = x.shape[1], WINDOW.to(x), len(WINDOW) // 2
    x = F.pad(x, (half, half, half, half), mode="reflect")
    x = F.conv2d(x, repeat(window, "k -> c 1 k 1", c=C), groups=C)
    return F.conv2d(x, repeat(window, "k -> c 1 1 k", c=C), groups=C)
