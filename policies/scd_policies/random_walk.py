"""A seeded smooth walk inside the action box: covers any environment's actions without knowing it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from scd_policies.policy import bounded_box, check_batch, generators


class RandomWalk:
    """Moves a point with momentum through the action box, kicked at random and reflected at the walls.

    speed: its root-mean-square step per axis, as a share of the box's side, above 0.
    smoothness: the share of its velocity, in [0, 1), that it keeps from one step to the next.
    """

    def __init__(self, action_space: gymnasium.Space, speed: float = 0.05, smoothness: float = 0.8) -> None:
        self._box = bounded_box(action_space)
        if not (speed > 0 and 0 <= smoothness < 1):
            raise ValueError(f"expected speed > 0 and 0 <= smoothness < 1, got {speed} and {smoothness}")
        self._keep = smoothness
        self._kick = speed * np.sqrt(1 - smoothness**2)  # keeps the velocity's variance at speed²
        self._rngs: list[np.random.Generator] = []

    def reset(self, seeds: Sequence[int]) -> None:
        self._rngs = generators(seeds)
        size = self._box.shape[0]
        self._position = np.stack([rng.uniform(size=size) for rng in self._rngs])  # in [0, 1]
        self._velocity = np.zeros_like(self._position)

    def act(self, obs: dict[str, Any]) -> np.ndarray:
        check_batch(obs, len(self._rngs))
        low, high = self._box.low, self._box.high
        action = (low + (high - low) * self._position).astype(self._box.dtype)
        kicks = np.stack([rng.standard_normal(len(low)) for rng in self._rngs])
        self._velocity = self._keep * self._velocity + self._kick * kicks
        self._position, turned = _reflect(self._position + self._velocity)
        self._velocity = np.where(turned, -self._velocity, self._velocity)
        return np.clip(action, low, high)


def _reflect(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Folds the point back into [0, 1]; also says on which axes it turned around."""
    folded = position % 2
    turned = folded > 1
    return np.where(turned, 2 - folded, folded), turned
