"""Statistics of predictions against what was observed: correlation, AUROC, calibration, bootstrap intervals.

N windows of recorded episodes, K columns (horizons).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


def angle_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Computes |a − b| of angles in radians, the short way round: in [0, π]."""
    return np.abs((a - b + np.pi) % (2 * np.pi) - np.pi)


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Computes Pearson's r of two (N,) arrays; NaN where one side is constant."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def auroc(score: np.ndarray, label: np.ndarray) -> float:
    """Computes P(score of a positive > score of a negative); ties count half, NaN unless both labels occur.

    score, label: (N,), labels 0 or 1.
    """
    from scipy.stats import rankdata

    label = label.astype(bool)
    positives, negatives = int(label.sum()), int((~label).sum())
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(score)[label].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))


def reliability(score: np.ndarray, label: np.ndarray, bins: int = 10) -> dict[str, Any]:
    """Compares predicted probabilities, score (N,) in [0, 1], with observed frequencies, label (N,) 0 or 1.

    Bins of equal width, empty ones left out: `predicted` and `observed` are their means, `count` how many
    they hold; `error` is the mean |predicted − observed|, weighted by count (expected calibration error).
    """
    place = np.minimum((score * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    full = count > 0
    predicted = np.bincount(place, score, bins)[full] / count[full]
    observed = np.bincount(place, label, bins)[full] / count[full]
    error = float((np.abs(predicted - observed) * count[full]).sum() / max(count.sum(), 1))
    return {
        "predicted": predicted.tolist(),
        "observed": observed.tolist(),
        "count": count[full].tolist(),
        "error": error,
    }


@dataclass(frozen=True)
class Summary:
    """Statistics over all windows, for each of K columns; NaN where no window has a value."""

    mean: np.ndarray  # (K,)
    low: np.ndarray  # (K,) 95 % bootstrap interval of the mean, episodes resampled
    high: np.ndarray  # (K,)
    median: np.ndarray  # (K,)
    count: np.ndarray  # (K,) windows with a value


def summarize(values: np.ndarray, episodes: np.ndarray, draws: int = 1000, seed: int = 0) -> Summary:
    """Summarizes values (N, K), NaN where a window has none; episodes (N,): the episode of each window.

    Windows of one episode resemble each other, so the bootstrap resamples whole episodes.
    One episode alone has no interval (NaN), and where a column has values of one alone neither has that.
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
            means = (times @ sums) / (times @ counts)
            means[:, (counts > 0).sum(0) < 2] = np.nan
            low, high = quantiles(means, (0.025, 0.975))
    (median,) = quantiles(values, (0.5,))
    return Summary(mean, low, high, median, counts.sum(0).astype(int))


def quantiles(values: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """Computes quantiles of each column's known values, (len(levels), K); NaN for an empty one, silently."""
    result = np.full((len(levels), values.shape[1]), np.nan)
    some = np.isfinite(values).any(0)
    if some.any():
        known = np.where(np.isfinite(values), values, np.nan)[:, some]
        result[:, some] = np.nanquantile(known, levels, axis=0)
    return result
