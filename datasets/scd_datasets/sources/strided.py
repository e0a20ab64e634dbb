"""A recording read at a lower rate: one step for n recorded ones, from every n-th frame to the next.

Neighbouring frames of a fast camera hardly differ, and a world model's steps are better spent on longer ones.
A step has the observation it begins with, the sum of its rewards, whether any of its frames succeeded, and
one action of the recording's own size: who acts in the world gives what the robot takes. Which one, the
recording tells. Of targets the last says where the robot is sent; of velocities and deltas the mean is what
was held.

L frames of an episode as recorded, n of them a step, K = ⌈L/n⌉ steps; R steps of all episodes, S state size,
A action size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from scd_datasets.sources.lerobot.features import (
    ACTION,
    DONE,
    ENVIRONMENT_STATE,
    REWARD,
    STATE,
    SUCCESS,
)
from scd_datasets.sources.source import DamagedEpisode, EpisodeIndex, Finding, Source, every_nth, listed
from scd_world.robot_data.stride import LAST, MEAN, Stride

LOOKED_AT = 64  # episodes, spread over all, whose numbers choose the action
USUAL = (0.001, 0.999)  # quantiles that bound what is fitted: damage is found later, and decides nothing here
BETTER = 1e-4  # of R²: a mean that is better by less is not, so that every machine chooses alike


# ---- one value for n recorded ones; an episode's last step may have fewer, and takes those there are


def first_of(values: np.ndarray, n: int) -> np.ndarray:
    """(L, …) → (K, …)"""
    return values[::n]


def last_of(values: np.ndarray, n: int) -> np.ndarray:
    """(L, …) → (K, …)"""
    return values[np.minimum(np.arange(n, len(values) + n, n), len(values)) - 1]


def sum_of(values: np.ndarray, n: int) -> np.ndarray:
    """(L, …) → float64 (K, …)"""
    return np.add.reduceat(values.astype(np.float64), np.arange(0, len(values), n), axis=0)


def mean_of(values: np.ndarray, n: int) -> np.ndarray:
    """(L, …) → float64 (K, …)"""
    return sum_of(values, n) / sum_of(np.ones((len(values), *[1] * (values.ndim - 1))), n)


def any_of(values: np.ndarray, n: int) -> np.ndarray:
    """(L, …) → bool (K, …)"""
    return np.logical_or.reduceat(values.astype(bool), np.arange(0, len(values), n), axis=0)


OF_ACTIONS = {LAST: last_of, MEAN: mean_of}
OF_OUTCOMES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    REWARD: sum_of,
    SUCCESS: any_of,
    DONE: any_of,
}


# ---- which action stands for n


def fit_actions(episodes: Sequence[tuple[np.ndarray, np.ndarray]], n: int) -> dict[str, float]:
    """Fits a line from state and action to how the state changes over n frames, once with each action that
    may stand for theirs: gives R² by its name, {} where no state moves.

    episodes: states (L, S) and actions (L, A), finite.
    """
    grid = [first_of(state, n) for state, _ in episodes]
    before = np.concatenate([states[:-1] for states in grid])
    change = scaled(np.concatenate([np.diff(states, axis=0) for states in grid]))  # (R, those that move)
    if not change.size:
        return {}
    fit = {}
    for name, of in OF_ACTIONS.items():
        action = np.concatenate([of(actions, n)[:-1] for _, actions in episodes])
        inputs = np.concatenate([scaled(before), scaled(action)], axis=1)
        weight = np.linalg.lstsq(inputs, change, rcond=None)[0]
        fit[name] = 1 - float(np.square(change - inputs @ weight).mean())
    return fit


def scaled(values: np.ndarray) -> np.ndarray:
    """Brings those columns of values (R, m) that vary to mean 0 and variance 1, without what is rare."""
    if not len(values):
        return values[:, :0]
    values = values.clip(*np.quantile(values, USUAL, axis=0))
    centred, spread = values - values.mean(0), values.std(0)
    moves = spread > 1e-9 * np.maximum(1, np.abs(values).max(0))
    return centred[:, moves] / spread[moves]


def better_action(fit: Mapping[str, float]) -> str:
    """Chooses by the fit; the last action where nothing tells, or both tell as much."""
    return MEAN if fit and fit[MEAN] > fit[LAST] + BETTER else LAST


class Strided:
    """Reads a source as if every n-th frame had been recorded: a `Source`.

    What is checked of a recording (its clock, gaps, damage) is checked of `recorded`, at its own rate.

    action: `last` or `mean`, where another recording has chosen; by default this one does.
    """

    def __init__(self, recorded: Source, frames: int, action: str | None = None) -> None:
        self.recorded, self.frames, self._action = recorded, frames, action
        self.fps = recorded.fps / frames
        self.episodes = [replace(one, length=every_nth(one.length, frames)) for one in recorded.episodes]
        self._recorded_episodes = {one.index: one for one in recorded.episodes}

    def __getattr__(self, name: str) -> Any:
        if name == "recorded":  # not set yet: it is being copied
            raise AttributeError(name)
        return getattr(self.recorded, name)

    @property
    def stride(self) -> Stride:
        return Stride(self.frames, self._action or better_action(self.fit))

    @cached_property
    def fit(self) -> dict[str, float]:
        """Measures how well each action tells the next state, R² by name; {} where no state does."""
        key = STATE if self.recorded.names(STATE) else ENVIRONMENT_STATE
        if not self.recorded.names(key):
            return {}
        places = np.unique(np.linspace(0, len(self.episodes) - 1, LOOKED_AT).astype(int))
        read = [self._state_action(self.recorded.episodes[place], key) for place in places]
        found = [one for one in read if one is not None]
        return fit_actions(found, self.frames) if found else {}

    def check_files(self, episode: EpisodeIndex) -> None:
        self.recorded.check_files(self._recorded_episodes[episode.index])

    def low_dim(self, episode: EpisodeIndex) -> dict[str, np.ndarray]:
        return self.strided(self.recorded.low_dim(self._recorded_episodes[episode.index]))

    def strided(self, low_dim: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Makes {key: (K, …)} of an episode's {key: (L, …)}."""
        reduced = OF_OUTCOMES | {ACTION: OF_ACTIONS[self.stride.action]}
        return {key: reduced.get(key, first_of)(values, self.frames) for key, values in low_dim.items()}

    def pixels(self, episode: EpisodeIndex, every: int = 1) -> np.ndarray:
        return self.recorded.pixels(self._recorded_episodes[episode.index], self.frames * every)

    def findings(self) -> list[Finding]:
        what = f"{self.recorded.fps:g} frames a second, read as {self.fps:g}"
        found = [Finding(what, f"stride {self.frames}", self._said(), notable=False)]
        if short := [one.index for one in self.recorded.episodes if 0 < one.length <= self.frames]:
            what = f"{len(short)} end before a step of {self.frames} frames does"
            done = "a single frame is stored of each; training leaves them out"
            found.append(Finding(what, f"episodes {listed(short)}", done))
        return self.recorded.findings() + found

    def read_options(self) -> list[Any]:
        return [*self.recorded.read_options(), ["stride", self.frames, self.stride.action]]

    def _said(self) -> str:
        """Says which action was chosen, and why."""
        chosen = self.stride.action
        if self._action or not self.fit:
            why = "chosen as in the training data" if self._action else "no state tells what the others did"
            return f"the {chosen} action of {self.frames} frames stands for them; {why}"
        other = MEAN if chosen == LAST else LAST
        better = "better" if self.fit[chosen] > self.fit[other] + BETTER else "as well"
        return (
            f"the {chosen} action of {self.frames} frames stands for them; it tells the next state {better} "
            f"(R² {self.fit[chosen]:.4f}) {'than' if better == 'better' else 'as'} their {other} "
            f"({self.fit[other]:.4f})"
        )

    def _state_action(self, episode: EpisodeIndex, key: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Reads an episode's state and action (L, …); None where they are damaged: the check says so."""
        try:
            values = self.recorded.low_dim(episode)
            with np.errstate(over="ignore"):  # what a float32 cannot hold is damage too
                both = [values[name].reshape(episode.length, -1).astype(np.float32) for name in (key, ACTION)]
            sizes = [len(self.recorded.names(name)) for name in (key, ACTION)]
        except (DamagedEpisode, KeyError, ValueError):
            return None
        sound = all(np.isfinite(one).all() for one in both) and [one.shape[1] for one in both] == sizes
        return (both[0].astype(np.float64), both[1].astype(np.float64)) if sound else None
