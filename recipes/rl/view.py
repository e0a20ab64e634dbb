"""What the policy sees and does on PushT: places in the block's own frame of reference.

A push looks the same wherever the block lies, so what is cloned or learned in one place holds in others.

B rows, N points of the block; places are complex, x + iy, in px where they are not said to be pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scd_policies.nearest_neighbor import ObjectFrame

UNIT = 50.0  # px of a displacement of 1
FURTHEST = 3.0  # of them that an action may aim away from the agent, along each axis
SIZE = 15  # of what the policy sees


class BlockView:
    """Turns observations into what the policy sees, and what it answers into actions in raw units."""

    def __init__(self, goals: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
        """goals: (E, 2·N) where the block's points end in successes; low, high (2,) of actions."""
        points = places(goals)
        self.frame, self.goal = (
            ObjectFrame(points),
            np.median(points.real, 0) + 1j * np.median(points.imag, 0),
        )
        self.low, self.high = low, high

    def features(self, state: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Gives (B, SIZE), of states (B, 2 + 2·N) and the last actions (B, 2), NaN where there was none."""
        agent, points, aim = places(state[:, :2])[:, 0], places(state[:, 2:]), places(last)[:, 0]
        center, turn = self.frame.pose(points)
        near = self.frame.features(agent, points, aim)
        walls = [pairs(center) / 256 - 1, pairs(agent) / 256 - 1]  # 512 px wide
        return np.column_stack([near, pairs(turn), *walls]).astype(np.float32)

    def action(self, state: np.ndarray, answer: np.ndarray) -> np.ndarray:
        """Gives raw actions (B, 2) of answers (B, 2): how far off the agent to aim, in the block's axes."""
        _, turn = self.frame.pose(places(state[:, 2:]))
        target = state[:, :2] + UNIT * pairs(places(answer)[:, 0] * turn)
        return np.clip(target, self.low, self.high).astype(np.float32)

    def answer(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Gives the answer (B, 2) that leads to raw actions (B, 2): the inverse, inside the furthest aim."""
        _, turn = self.frame.pose(places(state[:, 2:]))
        way = places(action - state[:, :2])[:, 0] * turn.conj() / UNIT
        return np.clip(pairs(way), -FURTHEST, FURTHEST).astype(np.float32)

    def distance(self, state: np.ndarray) -> np.ndarray:
        """Gives (B,): how far the block's points are from their goal, px on average."""
        return np.abs(places(state[:, 2:]) - self.goal).mean(1)


def as_state(obs: Mapping[str, Any]) -> np.ndarray:
    """Gives states (B, S) of observations."""
    return np.concatenate([obs["agent_pos"], obs["environment_state"]], axis=-1)


def places(values: np.ndarray) -> np.ndarray:
    """Converts pairs (B, 2·N) to places (B, N)."""
    return np.asarray(values, np.float64).reshape(len(values), -1, 2) @ (1, 1j)


def pairs(values: np.ndarray) -> np.ndarray:
    """Converts places (B,) to pairs (B, 2)."""
    return np.stack([values.real, values.imag], -1)
