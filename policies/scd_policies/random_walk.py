"""A seeded smooth walk inside the action box: covers any environment's actions without knowing it."""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium
import numpy as np

from scd_policies.policy import bounded_box, check_batch, generators


class RandomWalk:
    """A point with momentum in the action box, kicked at random and reflected at the walls.

    `speed`: its root-mean-square step per axis, as a part of the box's side; `smoothness`: how much of its
    velocity it keeps from one step to the next.
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

    def act(self, obs: dict[str, np.ndarray]) -> np.ndarray:
        check_batch(obs, len(self._rngs))
        low, high = self._box.low, self._box.high
        action = (low + (high - low) * self._position).astype(self._box.dtype)
        kicks = np.stack([rng.standard_normal(len(low)) for rng in self._rngs])
        self._velocity = self._keep * self._velocity + self._kick * kicks
        self._position, turned = _reflect(self._position + self._velocity)
        self._velocity = np.where(turned, -self._velocity, self._velocity)
        return np.clip(action, low, high)


def _reflect(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The point folded back into [0, 1], and whether it turned round."""
    folded = position % 2
    turned = folded > 1
    return np.where(turned, 2 - folded, folded), turned
