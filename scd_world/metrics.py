"""How far an imagination is from what was recorded; taken on raw tensors, never on video.

B rows, C channels (3 per camera), H W pixels; N windows of recorded episodes, K columns (horizons).
Frames are (B, C, H, W) in [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor

# Eight bits round by up to half a grey level: a mean square error below 1/12 level² cannot be known. Without
# this floor one motionless window gives copy-last an infinite mean.
ROUNDING = (2 / 255) ** 2 / 12
WINDOW = torch.exp(-(torch.arange(-5.0, 6.0) ** 2) / (2 * 1.5**2))  # SSIM's
WINDOW /= WINDOW.sum()
PSNR_CAP = 10 * np.log10(4 / ROUNDING)  # 58.9 dB


def psnr(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """(B,) 10·log10(2² / mse) in dB, at most PSNR_CAP; with a mask (B, C, H, W), NaN where it is empty."""
    square = (x - y).square()
    if mask is None:
        mse = reduce(square, "b c h w -> b", "mean")
    else:
        total = reduce(square * mask, "b c h w -> b", "sum")
        mse = total / reduce(mask.float(), "b c h w -> b", "sum")  # 0/0 is NaN: nothing to say
    return 10 * torch.log10(4 / mse.clamp_min(ROUNDING))


def changed_pixels(truth: Tensor, before: Tensor, grey_levels: float) -> Tensor:
    """(B, C, H, W) bool: pixels with a colour that differs from `before` by more than so many grey levels."""
    differs = (truth - before).abs() > grey_levels * 2 / 255
    pixels = rearrange(differs, "b (v c) h w -> b v c h w", c=3).any(2)
    return repeat(pixels, "b v h w -> b (v c) h w", c=3)


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """(B,) structural similarity (Wang et al. 2004: Gaussian window of 11 pixels, σ = 1.5), mean over all.

    Of values in [0, 1]: its luminance term has no meaning for negative ones. Equal to torchmetrics' (a test
    says so) without the seconds that its import takes. NaN for pictures smaller than half a window.
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
    """Gaussian mean around every pixel, the picture reflected at its borders: rows, then columns."""
    C, window, half = x.shape[1], WINDOW.to(x), len(WINDOW) // 2
    x = F.pad(x, (half, half, half, half), mode="reflect")
    x = F.conv2d(x, repeat(window, "k -> c 1 k 1", c=C), groups=C)
    return F.conv2d(x, repeat(window, "k -> c 1 1 k", c=C), groups=C)


def angle_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a − b| of angles in radians, the short way round."""
    return np.abs((a - b + np.pi) % (2 * np.pi) - np.pi)


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's r; NaN where one side is constant."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def auroc(score: np.ndarray, label: np.ndarray) -> float:
    """P(score of a positive > score of a negative), ties count half; NaN unless both kinds are there."""
    from scipy.stats import rankdata

    label = label.astype(bool)
    positives, negatives = int(label.sum()), int((~label).sum())
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(score)[label].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))


def reliability(score: np.ndarray, label: np.ndarray, bins: int = 10) -> dict[str, Any]:
    """Do things that are given probability p happen with frequency p?

    Bins of equal width: `said` and `happened` are their means, `count` how many they hold; `error` is the
    mean |said − happened| over all of them, by count (expected calibration error).
    """
    place = np.minimum((score * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    full = count > 0
    said = np.bincount(place, score, bins)[full] / count[full]
    happened = np.bincount(place, label, bins)[full] / count[full]
    error = float((np.abs(said - happened) * count[full]).sum() / max(count.sum(), 1))
    return {
        "said": said.tolist(),
        "happened": happened.tolist(),
        "count": count[full].tolist(),
        "error": error,
    }


@dataclass(frozen=True)
class Summary:
    """Over all windows, for each of K columns. NaN where no window has a value."""

    mean: np.ndarray  # (K,)
    low: np.ndarray  # (K,) 95 % bootstrap interval of the mean, episodes redrawn
    high: np.ndarray  # (K,)
    median: np.ndarray  # (K,)
    count: np.ndarray  # (K,) windows with a value


def summarise(values: np.ndarray, episodes: np.ndarray, draws: int = 1000, seed: int = 0) -> Summary:
    """values (N, K), NaN where a window has none; episodes (N,): the episode of each window.

    Windows of one episode resemble each other, so the bootstrap redraws whole episodes.
    One episode alone has no interval (NaN).
    """
    known = np.isfinite(values)
    _, which = np.unique(episodes, return_inverse=True)
    E = which.max(initial=-1) + 1
    sums, counts = np.zeros((E, values.shape[1])), np.zeros((E, values.shape[1]))
    np.add.at(sums, which, np.where(known, values, 0.0))
    np.add.at(counts, which, known)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = sums.sum(0) / counts.sum(0)
        low = high = np.full_like(mean, np.nan)
        if E > 1:
            times = np.random.default_rng(seed).multinomial(E, np.full(E, 1 / E), size=draws)  # (draws, E)
            low, high = quantiles((times @ sums) / (times @ counts), (0.025, 0.975))
    (median,) = quantiles(values, (0.5,))
    return Summary(mean, low, high, median, counts.sum(0).astype(int))


def quantiles(values: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """(len(levels), K) of each column's known values; NaN for an empty column, without a warning."""
    result = np.full((len(levels), values.shape[1]), np.nan)
    some = np.isfinite(values).any(0)
    if some.any():
        known = np.where(np.isfinite(values), values, np.nan)[:, some]
        result[:, some] = np.nanquantile(known, levels, axis=0)
    return result
