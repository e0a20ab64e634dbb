"""How well one ranking of policies agrees with another: correlations, intervals, violations, bias.

P policies; each has a success rate in reality and one in the imagination, over N episodes. Conventions are
named where they are chosen, because published figures differ in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scd_world.metrics.statistics import correlation

LEVELS = (0.025, 0.975)  # of every 95 % interval
Z = 1.959964  # of the same, in standard deviations


@dataclass(frozen=True)
class PairedOutcomes:
    """One policy's episodes: episode number → did it succeed, in reality and in the imagination.

    starts: how many different starts the episodes have, episode i the (i mod starts)-th; None: each its own.
    """

    name: str
    real: dict[int, bool]
    imagined: dict[int, bool]
    starts: int | None = None

    @property
    def common(self) -> list[int]:
        """The episodes that both sides played: the same start and the same seed."""
        return sorted(self.real.keys() & self.imagined.keys())

    @property
    def paired(self) -> bool:
        """Whether the sides played the same episodes."""
        return self.real.keys() == self.imagined.keys()

    def starts_of(self, side: str) -> int | None:
        """Gives the number of different starts; None where reality played other episodes."""
        return None if side == "real" and not self.real.keys() <= self.imagined.keys() else self.starts

    def independent(self, side: str) -> int:
        """Counts the independent episodes: one for each start, where starts repeat."""
        episodes, starts = getattr(self, side), self.starts_of(side)
        return len(episodes if starts is None else {episode % starts for episode in episodes})


def wilson(successes: int, episodes: int, independent: int | None = None) -> tuple[float, float]:
    """Computes the 95 % interval of a success rate (Wilson's score, without continuity correction).

    independent: how many of the episodes are independent of each other; None: all.
    """
    p, n = successes / episodes, independent or episodes
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    # At 0 and 1 the bound is exact; rounding must not leave it on the wrong side of the rate.
    return min(p, max(0.0, float(middle - half))), max(p, min(1.0, float(middle + half)))


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Computes Pearson's r of the ranks, ties having their mean rank; NaN where one side is constant."""
    from scipy.stats import rankdata

    return correlation(rankdata(x), rankdata(y))


def kendall(x: np.ndarray, y: np.ndarray) -> float:
    """Computes tau-b, which takes ties into account; NaN where one side is constant."""
    signs = [np.sign(side[:, None] - side[None]) for side in (x, y)]
    scale = np.sqrt((signs[0] ** 2).sum() * (signs[1] ** 2).sum())
    return float((signs[0] * signs[1]).sum() / scale) if scale else float("nan")


def mmrv(imagined: np.ndarray, real: np.ndarray) -> float:
    """Computes the mean maximum rank violation (SIMPLER), strict ">" on both sides; 0 is best.

    mean_i max_j |real_i − real_j| · 1[(imagined_i > imagined_j) ≠ (real_i > real_j)]
    So a tie of the imagination between policies that reality ranks is a violation; a tie of reality never is.
    """
    wrong = (imagined[:, None] > imagined[None]) != (real[:, None] > real[None])
    return float((np.abs(real[:, None] - real[None]) * wrong).max(1).mean())


def kappa(a: np.ndarray, b: np.ndarray) -> float:
    """Computes Cohen's kappa of two raters of the same episodes, (N,) bool; NaN if chance always agrees."""
    chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return float(((a == b).mean() - chance) / (1 - chance)) if chance < 1 else float("nan")


STATISTICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "pearson": correlation,
    "spearman": spearman,
    "kendall": kendall,
    "mmrv": mmrv,
    "bias": lambda imagined, real: float((imagined - real).mean()),  # above 0: optimistic
    "mae": lambda imagined, real: float(np.abs(imagined - real).mean()),
}


def agreement(pairs: Sequence[PairedOutcomes], draws: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Computes all figures of agreement, as plain data, of at least two policies; draws: of the bootstrap."""
    imagined, real = (np.array([rate(getattr(p, side)) for p in pairs]) for side in ("imagined", "real"))
    figures: dict[str, Any] = {
        name: {"value": statistic(imagined, real)} for name, statistic in STATISTICS.items()
    }
    samples = bootstrap(pairs, draws, np.random.default_rng(seed))
    for name, values in samples.items():
        known = values[np.isfinite(values)]
        low, high = np.quantile(known, LEVELS) if len(known) else (np.nan, np.nan)
        figures[name] |= {"low": float(low), "high": float(high), "undefined_draws": int(draws - len(known))}
    return figures | {
        "policies": len(pairs),
        "leave_one_out": leave_one_out(pairs, imagined, real),
        "permutation_p": permutation_p(imagined, real, np.random.default_rng(seed)),
        "episodes": per_episode(pairs),
        "optimism": optimism(figures["bias"]),
    }


def rate(outcomes: dict[int, bool]) -> float:
    """Computes the share of episodes that succeeded."""
    return float(np.mean(list(outcomes.values())))


def bootstrap(pairs: Sequence[PairedOutcomes], draws: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Resamples all statistics: name → (draws,). A sample is P policies and, of each, its episodes, with
    replacement.

    Where a policy's two sides played the same episodes, an episode keeps both of its outcomes, and where
    several began at one start they are sampled together; a policy that comes twice has different episodes.
    NaN where a sample leaves a side without variance.
    """
    P = len(pairs)
    tables = [_table(pair) for pair in pairs]
    values = {name: np.empty(draws) for name in STATISTICS}
    for i in range(draws):
        rates = np.array([_resampled(tables[p], rng) for p in rng.integers(P, size=P)])  # (P, 2)
        for name, statistic in STATISTICS.items():
            values[name][i] = statistic(rates[:, 0], rates[:, 1])
    return values


def _table(pair: PairedOutcomes) -> list[tuple[np.ndarray, np.ndarray]]:
    """Counts successes and episodes per start, imagined and real: one ((2, S), (S,)) where they are paired,
    else two of ((1, S), (S,))."""
    if pair.paired:
        return [_per_start([pair.imagined, pair.real], pair.starts)]
    return [_per_start([getattr(pair, side)], pair.starts_of(side)) for side in ("imagined", "real")]


def _per_start(sides: Sequence[dict[int, bool]], starts: int | None) -> tuple[np.ndarray, np.ndarray]:
    episodes = np.array(sorted(sides[0]))
    start = np.unique(episodes if starts is None else episodes % starts, return_inverse=True)[1]
    outcomes = [[side[e] for e in episodes] for side in sides]
    return np.stack([np.bincount(start, weights=side) for side in outcomes]), np.bincount(start)


def _resampled(table: list[tuple[np.ndarray, np.ndarray]], rng: np.random.Generator) -> np.ndarray:
    """Gives the rates (2,) of episodes sampled with replacement, start by start."""
    rates = []
    for successes, episodes in table:
        sample = rng.integers(len(episodes), size=len(episodes))
        rates.append(successes[:, sample].sum(1) / episodes[sample].sum())
    return np.concatenate(rates)


def leave_one_out(pairs: Sequence[PairedOutcomes], imagined: np.ndarray, real: np.ndarray) -> dict[str, Any]:
    """Computes the range of Pearson's r without any one policy, and which ones give its ends."""
    keep = ~np.eye(len(pairs), dtype=bool)
    without = np.array([correlation(imagined[k], real[k]) for k in keep])
    if not np.isfinite(without).any():
        return {"low": None, "high": None}
    low, high = int(np.nanargmin(without)), int(np.nanargmax(without))
    return {
        "low": float(without[low]),
        "without_low": pairs[low].name,
        "high": float(without[high]),
        "without_high": pairs[high].name,
    }


def permutation_p(imagined: np.ndarray, real: np.ndarray, rng: np.random.Generator) -> float:
    """Tests Pearson's r against chance, one-sided: (1 + as high ones) / (1 + draws), so never 0."""
    observed, draws = correlation(imagined, real), 9999
    if not np.isfinite(observed):
        return float("nan")
    x, y = imagined - imagined.mean(), real - real.mean()
    shuffled = np.stack([rng.permutation(x) for _ in range(draws)]) @ y
    return float((1 + (shuffled >= x @ y - 1e-12).sum()) / (1 + draws))


def per_episode(pairs: Sequence[PairedOutcomes]) -> dict[str, Any]:
    """Measures how far the sides agree on single episodes: all that both played, of all policies together."""
    both = [(pair.imagined[e], pair.real[e]) for pair in pairs for e in pair.common]
    if not both:
        return {"count": 0, "agreement": None, "kappa": None}
    a, b = np.array(both).T
    return {"count": len(both), "agreement": float((a == b).mean()), "kappa": kappa(a, b)}


def optimism(bias: dict[str, float]) -> str:
    """Names the sign of the bias, where its interval excludes 0."""
    if bias["low"] > 0:
        return "optimistic"
    return "pessimistic" if bias["high"] < 0 else "undecided"
