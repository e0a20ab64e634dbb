"""Imitation by nearest neighbor: the action that was taken in the most similar frame of a few demonstrations.

For pushing one rigid object about a plane. Two frames are similar if the pusher is at a similar place, aims
at a similar one, and the object has as far to go, all in the object's own frame of reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from scipy.spatial import KDTree

from scd_policies import regression
from scd_policies.policy import bounded_box, check_batch
from scd_world.utils.rigid_fit import rigid_fit

KEYS = ("agent_pos", "environment_state")

# What counts as similar, in shares of the object's radius (on PushT 63 px): positions at large, and distances
# that matter the more the shorter they are, the object's to its goal and the pusher's to its aim.
COARSE, FINE = 1 / 3, 1 / 12
GOAL, AIM = 4.0, 2.0  # the weights of these two distances; found on PushT
KIND = "nearest_neighbor"


class ObjectFrame:
    """Gives observations in the pushed object's own frame. Positions are complex, x + iy, in raw units."""

    def __init__(self, goals: np.ndarray) -> None:
        """goals: complex (E, N), the object's N points in the last frame of each demonstration."""
        self._shape = goals[0] - goals[0].mean()
        self.radius = np.sqrt((abs(self._shape) ** 2).mean())
        center, turn = self.pose(goals)
        self._goal = np.median(center.real) + 1j * np.median(center.imag)
        self._goal_turn = turn.mean() / abs(turn.mean())

    def pose(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gives, for points (B, N), the center (B,) and the rotation (B,) of length 1."""
        return rigid_fit(points, self._shape)

    def features(self, agent: np.ndarray, points: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Gives (B, 9), of agent (B,), points (B, N), last action (B,) or NaN; similar frames are near."""
        center, turn = self.pose(points)
        position, way = ((place - center) * turn.conj() / self.radius for place in (agent, self._goal))
        aim = np.where(np.isnan(last), position, (last - center) * turn.conj() / self.radius)
        angle = np.angle(self._goal_turn * turn.conj())
        coarse = np.stack([position, aim], -1) / COARSE
        to_goal = GOAL * np.arcsinh(np.column_stack([_pair(way), angle]) / FINE)
        to_aim = AIM * np.arcsinh(_pair(aim - position) / FINE)
        return np.column_stack([_pair(coarse), to_goal, to_aim])


class NearestNeighborPolicy:
    """Takes the action of the most similar frame of the demonstrations in file `path`, moved with the object.

    It remembers its last action, and samples nothing. Raises ValueError for actions that are not (x, y), for
    observations of other sizes than the demonstrations', and for a file of another kind.
    """

    def __init__(self, action_space: gymnasium.Space, path: str | Path) -> None:
        self._box = bounded_box(action_space)
        if self._box.shape != (2,):
            raise ValueError(f"nearest_neighbor acts in (x, y); this environment takes {self._box.shape[0]}")
        recorded = {name: value.numpy() for name, value in regression.load(path, KIND)[1].items()}
        agents, actions, points = (_complex(recorded[key]) for key in ("agent_pos", "action", KEYS[1]))
        agent, action, ends = agents[:, 0], actions[:, 0], recorded["ends"]
        last = np.roll(action, 1)
        last[[0, *ends[:-1]]] = np.nan
        self._frame = ObjectFrame(points[ends - 1])
        self._tree = KDTree(self._frame.features(agent, points, last))
        center, turn = self._frame.pose(points)
        self._actions = (action - center) * turn.conj()  # in the object's frame
        self._sizes = {key: recorded[key].shape[1] for key in KEYS}
        self._last: np.ndarray = np.zeros(0, complex)

    def reset(self, seeds: Sequence[int]) -> None:
        self._last = np.full(len(seeds), np.nan, complex)

    def act(self, obs: dict[str, Any]) -> np.ndarray:
        missing = set(KEYS) - set(obs)
        if missing:
            raise ValueError(f"nearest_neighbor needs {sorted(missing)}; observed are {sorted(obs)}")
        check_batch(obs, len(self._last))
        sizes = {key: obs[key].shape[-1] for key in KEYS}
        if sizes != self._sizes:
            raise ValueError(f"the demonstrations have sizes {self._sizes}; observed are {sizes}")
        agent, points = _complex(obs["agent_pos"])[:, 0], _complex(obs["environment_state"])
        _, nearest = self._tree.query(self._frame.features(agent, points, self._last))
        center, turn = self._frame.pose(points)
        targets = _pair(center + self._actions[nearest] * turn)
        action = np.clip(targets, self._box.low, self._box.high)
        self._last = _complex(action)[:, 0]
        return action.astype(self._box.dtype)


def fit_nearest_neighbor(
    state: dict[str, np.ndarray], action: np.ndarray, ends: np.ndarray, path: str | Path
) -> None:
    """Writes demonstrations, one after the other, to the file `path`.

    state: `agent_pos` (N, 2) and `environment_state` (N, 2 × points of the rigid object).
    action: (N, 2), in the same plane.
    ends: (E,), after how many rows each demonstration ended, with the object at its goal.

    Raises ValueError for other shapes.
    """
    shapes = [each.shape for each in (state["agent_pos"], action, state["environment_state"])]
    (_, P), (_, A), (_, S) = shapes
    if (P, A) != (2, 2) or S < 4 or S % 2:
        raise ValueError(
            "nearest_neighbor imitates agent_pos (N, 2), action (N, 2) and two or more points as "
            f"environment_state (N, 2 × points); got {', '.join(map(str, shapes))}"
        )
    recorded = {key: state[key].astype(np.float32) for key in KEYS}
    recorded |= {"action": action.astype(np.float32), "ends": np.asarray(ends, np.int64)}
    regression.save({name: torch.from_numpy(value) for name, value in recorded.items()}, path, {"kind": KIND})


def _complex(pairs: np.ndarray) -> np.ndarray:
    """Converts (B, 2N) real to (B, N) complex."""
    return pairs.astype(np.float64).reshape(len(pairs), -1, 2) @ (1, 1j)


def _pair(points: np.ndarray) -> np.ndarray:
    """Converts (B, …) complex to (B, 2 × …) real."""
    return np.stack([points.real, points.imag], -1).reshape(len(points), -1)
