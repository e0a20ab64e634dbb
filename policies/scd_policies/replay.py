"""Recorded actions, played again, in the environment that they come from or in another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from scd_policies.policy import bounded_box, check_batch


class Replay:
    """Plays `actions[seeds[i]]`, an array (T, A) in raw units, in episode i; then holds the last action."""

    def __init__(self, action_space: gymnasium.Space, actions: Sequence[np.ndarray]) -> None:
        self._box = bounded_box(action_space)
        size = self._box.shape[0]
        self._actions = [np.asarray(episode, dtype=self._box.dtype) for episode in actions]
        for index, episode in enumerate(self._actions):
            if episode.ndim != 2 or len(episode) == 0 or episode.shape[1] != size:
                raise ValueError(f"episode {index}: expected actions (T ≥ 1, {size}), got {episode.shape}")
        self._chosen: list[np.ndarray] = []

    def reset(self, seeds: Sequence[int]) -> None:
        for seed in seeds:
            if not 0 <= seed < len(self._actions):
                raise ValueError(
                    f"a replay's seed is the index of an episode, 0 to {len(self._actions) - 1}; got {seed}"
                )
        self._chosen = [self._actions[seed] for seed in seeds]
        self._frame = 0

    def act(self, obs: dict[str, Any]) -> np.ndarray:
        check_batch(obs, len(self._chosen))
        action = np.stack([episode[min(self._frame, len(episode) - 1)] for episode in self._chosen])
        self._frame += 1
        return action
