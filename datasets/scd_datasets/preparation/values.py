"""Recorded numbers from which nothing, or something false, would be learned: frozen, absurd, repeated ones.

L steps of an episode, n dimensions of a feature, F frames of all episodes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scd_datasets.preparation.checked import CheckedEpisode
from scd_datasets.sources.lerobot.features import ACTION, ENVIRONMENT_STATE, REWARD, STATE
from scd_datasets.sources.source import DamagedEpisode, Finding, Source, listed

SMALL = 1e-3  # of its own size (at least 1): no usual range is smaller
# Within which quantiles usual values lie, and how many times that range beside it a value is odd. A few odd
# ones are outside the wide quantiles; a sentinel in every tenth row is outside the narrow ones alone.
USUAL = (((0.01, 0.99), 100.0), ((0.25, 0.75), 1000.0))
ABSURD = 1e6  # times the range of the narrow ones: such a value would be all there is to the dimension


@dataclass(frozen=True)
class Extreme:
    """A value far beside the usual ones of its dimension."""

    episode: int  # place in the list of episodes
    frame: int
    name: str
    value: float
    times: float  # the usual range


def extremes(source: Source, good: Sequence[CheckedEpisode]) -> list[Extreme]:
    """Finds, of each dimension of states, actions and reward, the values far beside the usual ones: the worst
    of each episode."""
    found = []
    for key in (STATE, ENVIRONMENT_STATE, ACTION, REWARD):
        names = source.names(key)
        if not names:
            continue
        parts = [one.low_dim[key].reshape(one.episode.length, -1).astype(np.float64) for one in good]
        scales = [(usual_range(np.concatenate(parts), *quantiles), odd) for quantiles, odd in USUAL]
        for place, values in enumerate(parts):
            away = [(distance(values, *usual), odd) for usual, odd in scales]  # (L, n) each
            excess = np.max([times / odd for times, odd in away], axis=0)
            if excess.max() > 1:
                frame, column = np.unravel_index(np.argmax(excess), excess.shape)
                times = float(max(times[frame, column] for times, _ in away))
                value, name = float(values[frame, column]), f"{key} {names[column]}"
                found.append(Extreme(place, int(frame), name, value, times))
    return found


def usual_range(values: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gives (n,) each, of values (F, n): two quantiles, and the range between them.

    A dimension that hardly moves (a sparse reward, a gripper) has no usual range; its own size is one.
    """
    below = np.quantile(values, low, axis=0, method="higher")  # of few values all but the extreme ones
    above = np.quantile(values, high, axis=0, method="lower")
    size = np.maximum(1.0, np.abs(np.median(values, axis=0)))
    return below, above, np.where(above > below, np.maximum(above - below, SMALL * size), size)


def distance(values: np.ndarray, below: np.ndarray, above: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Gives how many usual ranges each of the values (L, n) lies beside them."""
    return np.maximum(values - above, below - values) / usual


def absurd(source: Source, good: Sequence[CheckedEpisode]) -> list[DamagedEpisode]:
    """Gives the damage of the episodes that hold a value more than ABSURD ranges beside the usual ones: it
    would be the range of its dimension, and all others next to nothing in it."""
    return [
        DamagedEpisode(
            good[one.episode].episode.index,
            good[one.episode].episode.file,
            f"{one.name} is {one.value:.3g} at frame {one.frame}, {one.times:.0e} times its usual range away",
        )
        for one in extremes(source, good)
        if one.times > ABSURD
    ]


def extreme_findings(source: Source, good: Sequence[CheckedEpisode]) -> list[Finding]:
    """Lists the dimensions with values that are odd, and kept: the worst, and in which episodes there are
    any."""
    found: dict[str, list[Extreme]] = defaultdict(list)
    for one in extremes(source, good):
        found[one.name].append(one)
    findings = []
    for name, ones in found.items():
        worst = max(ones, key=lambda one: one.times)
        what = (
            f"is {worst.value:.4g} at frame {worst.frame} of episode {good[worst.episode].episode.index}, "
            f"{worst.times:.0f} times its usual range away; the like in {len(ones)} episodes: "
            f"{listed([good[one.episode].episode.index for one in ones])}"
        )
        findings.append(Finding(what, name, "kept; it widens the range, in which what is usual is small"))
    return findings


def still(names: Sequence[str], low: np.ndarray, high: np.ndarray) -> list[str]:
    """Gives the names (n) of the dimensions whose lowest and highest values (n,) are one."""
    return [name for name, a, b in zip(names, low, high, strict=True) if a == b]


def still_finding(
    where: str, names: Sequence[str], low: np.ndarray, high: np.ndarray, done: str
) -> list[Finding]:
    """Says in one line which dimensions never move, and what is done about it."""
    frozen = still(names, low, high)
    what = f"{len(frozen)} of {len(names)} never move: {listed(frozen)}"
    return [Finding(what, where, done)] if frozen else []


def twins(good: Sequence[CheckedEpisode]) -> dict[int, int]:
    """Finds episodes that repeat an earlier one, number by number: place → place of the first.

    Only where a state was recorded and moves: commands alone may well be the same.
    """
    first: dict[bytes, int] = {}
    found = {}
    for place, one in enumerate(good):
        state = one.state
        if not state.size or not np.ptp(state, axis=0).any():
            continue
        content = np.hstack([state, one.matrix(ACTION)]).tobytes()
        if first.setdefault(content, place) != place:
            found[place] = first[content]
    return found
