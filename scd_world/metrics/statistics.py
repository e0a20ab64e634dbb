"""How far an imagination is from what was recorded; taken on raw tensors, never on video.

B rows, C channels (3 per camera), H W pixels; N windows of recorded episodes, K columns (horizons).
Frames are (B, C, H, W) in [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scd_world.metrics.image import WINDOW

WINDOW /= WINDOW.sum()


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
