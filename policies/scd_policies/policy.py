"""The protocol of everything that acts, and the checks its implementations share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import gymnasium
import numpy as np


class Policy(Protocol):
    """Acts in B episodes at once; row i depends on its own seed and observations only."""

    def reset(self, seeds: Sequence[int]) -> None:
        """Start B = len(seeds) episodes."""

    def act(self, obs: dict[str, np.ndarray]) -> np.ndarray:
        """Observations with a leading axis B on every key -> raw actions (B, A)."""


def generators(seeds: Sequence[int]) -> list[np.random.Generator]:
    """One stream per episode, and another than that of an environment reset with the same seed."""
    return [np.random.default_rng([seed, 1]) for seed in seeds]


def bounded_box(action_space: gymnasium.Space) -> gymnasium.spaces.Box:
    """`action_space` itself if it is a bounded, one-dimensional Box; ValueError otherwise."""
    is_box = isinstance(action_space, gymnasium.spaces.Box) and len(action_space.shape) == 1
    if not (is_box and action_space.is_bounded()):
        raise ValueError(f"expected a bounded one-dimensional Box of actions, got {action_space}")
    return action_space


def check_batch(obs: dict[str, np.ndarray], rows: int) -> None:
    """Every key of `obs` has as many rows as the policy was reset with; ValueError otherwise."""
    for key, value in obs.items():
        # Several cameras come as a dict of pictures.
        for array in value.values() if isinstance(value, dict) else [value]:
            if len(array) != rows:
                raise ValueError(
                    f"{key!r} has {len(array)} rows, the policy was reset with {rows} seeds; "
                    "call reset(seeds) with one seed per row, and act with a leading batch axis"
                )
