"""Behaviour cloning by nearest neighbour: what was done in the most alike moment of a few recordings.

For pushing one rigid thing about a plane. Two moments are alike if the pusher stands and aims alike and the
thing has as far to go, all as the thing sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gymnasium
import numpy as np
import torch
from scipy.spatial import KDTree

from scd_policies import regression
from scd_policies.policy import bounded_box, check_batch

KEYS = ("agent_pos", "environment_state")

# What counts as alike, in shares of the thing's radius (on PushT 63 px): places at large, and those that
# matter the more the nearer they are, the thing's way home and the pusher's to its aim.
COARSE, FINE = 1 / 3, 1 / 12
HOME, AIM = 4.0, 2.0  # the weights of these two ways; found on PushT


class ObjectFrame:
    """Moments as the pushed thing sees them. Places are complex numbers, x + iy, in raw units."""

    def __init__(self, lessons: np.ndarray) -> None:
        """From where the lessons ended: (E, N) the thing's N points in the last moment of each."""
        self._shape = lessons[0] - lessons[0].mean()
        self.radius = np.sqrt((abs(self._shape) ** 2).mean())
        centre, turn = self.pose(lessons)
        self._home = np.median(centre.real) + 1j * np.median(centre.imag)
        self._home_turn = turn.mean() / abs(turn.mean())

    def pose(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, N) -> (B,) the centre, (B,) the turn as a number of length 1: the least-squares rigid fit."""
        centre = points.mean(-1)
        turn = ((points - centre[:, None]) * self._shape.conj()).sum(-1)
        return centre, turn / abs(turn)

    def features(self, agent: np.ndarray, points: np.ndarray, last: np.ndarray) -> np.ndarray:
        """agent (B,), points (B, N), last action (B,) or NaN -> (B, 9): their distance is unlikeness."""
        centre, turn = self.pose(points)
        here, way = ((place - centre) * turn.conj() / self.radius for place in (agent, self._home))
        aim = np.where(np.isnan(last), here, (last - centre) * turn.conj() / self.radius)
        angle = np.angle(self._home_turn * turn.conj())
        coarse = np.stack([here, aim], -1) / COARSE
        to_go = HOME * np.arcsinh(np.column_stack([_pair(way), angle]) / FINE)
        to_aim = AIM * np.arcsinh(_pair(aim - here) / FINE)
        return np.column_stack([_pair(coarse), to_go, to_aim])


class NearestNeighborPolicy:
    """Does what was done in the most alike moment of the lessons in the file `path`, beside the thing as it
    lies now. It remembers its last action, and draws nothing."""

    def __init__(self, action_space: gymnasium.Space, path: str | Path) -> None:
        self._box = bounded_box(action_space)
        if self._box.shape != (2,):
            raise ValueError(f"a clone acts in 2 numbers; this environment takes {self._box.shape[0]}")
        lessons = {name: value.numpy() for name, value in regression.load(path, "clone")[1].items()}
        agent, action, points = (_complex(lessons[key]) for key in ("agent_pos", "action", KEYS[1]))
        agent, action, ends = agent[:, 0], action[:, 0], lessons["ends"]
        last = np.roll(action, 1)
        last[[0, *ends[:-1]]] = np.nan
        self._view = ObjectFrame(points[ends - 1])
        self._alike = KDTree(self._view.features(agent, points, last))
        centre, turn = self._view.pose(points)
        self._done = (action - centre) * turn.conj()  # as the thing saw it
        self._sizes = {key: lessons[key].shape[1] for key in KEYS}
        self.reset([])

    def reset(self, seeds: Sequence[int]) -> None:
        self._last = np.full(len(seeds), np.nan, complex)

    def act(self, obs: dict[str, np.ndarray]) -> np.ndarray:
        missing = set(KEYS) - set(obs)
        if missing:
            raise ValueError(f"a clone needs {sorted(missing)}; observed are {sorted(obs)}")
        check_batch(obs, len(self._last))
        sizes = {key: obs[key].shape[-1] for key in KEYS}
        if sizes != self._sizes:
            raise ValueError(f"this clone learnt from {self._sizes} numbers; observed are {sizes}")
        agent, points = _complex(obs["agent_pos"])[:, 0], _complex(obs["environment_state"])
        _, nearest = self._alike.query(self._view.features(agent, points, self._last))
        centre, turn = self._view.pose(points)
        action = np.clip(_pair(centre + self._done[nearest] * turn), self._box.low, self._box.high)
        self._last = _complex(action)[:, 0]
        return action.astype(self._box.dtype)


def fit_nearest_neighbor(
    state: dict[str, np.ndarray], action: np.ndarray, ends: np.ndarray, path: str | Path
) -> None:
    """Keeps lessons, one after the other, as the file `path`.

    state: `agent_pos` (N, 2) and `environment_state` (N, 2 × points of the rigid thing); action (N, 2), in
    the same plane; ends (E,): after how many rows each lesson ended, with the thing where it belongs.
    """
    shapes = [each.shape for each in (state["agent_pos"], action, state["environment_state"])]
    (_, P), (_, A), (_, S) = shapes
    if (P, A) != (2, 2) or S < 4 or S % 2:
        raise ValueError(
            "a clone learns from agent_pos (N, 2), action (N, 2) and two or more points as environment_state "
            f"(N, 2 × points); got {', '.join(map(str, shapes))}"
        )
    lessons = {key: state[key].astype(np.float32) for key in KEYS}
    lessons |= {"action": action.astype(np.float32), "ends": np.asarray(ends, np.int64)}
    regression.save(
        {name: torch.from_numpy(value) for name, value in lessons.items()}, path, {"kind": "clone"}
    )


def _complex(pairs: np.ndarray) -> np.ndarray:
    """(B, 2N) real -> (B, N)."""
    return pairs.astype(np.float64).reshape(len(pairs), -1, 2) @ (1, 1j)


def _pair(places: np.ndarray) -> np.ndarray:
    """(B, …) complex -> (B, 2 × …) real."""
    return np.stack([places.real, places.imag], -1).reshape(len(places), -1)
