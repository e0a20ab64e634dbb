"""The protocol `Policy` of everything that acts, and the checks that its implementations share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np


class Policy(Protocol):
    """Acts in B episodes at once; row i depends on its own seed and observations only."""

    def reset(self, seeds: Sequence[int]) -> None:
        """Starts B = len(seeds) episodes; equal seeds and observations give equal actions."""
        ...

    def act(self, obs: dict[str, Any]) -> np.ndarray:
        """Gives the next actions (B, A), in raw units.

        obs: Gymnasium observations with a leading axis B: `pixels` uint8 (B, H, W, 3), or a dict of them by
        camera; `agent_pos` (B, P) and `environment_state` (B, E) float32, raw units; whichever there are.

        Raises ValueError where a key that the policy needs is missing, or has another number of rows than
        `reset` had seeds.
        """
        ...


@runtime_checkable
class ReportingPolicy(Policy, Protocol):
    """A policy that says something of each decision; a rollout keeps it beside the environment's infos."""

    @property
    def decision_info(self) -> dict[str, np.ndarray]:
        """Gives scalars (B,) by name, of the last `act`."""
        ...


def end_rows(policy: Policy, over: np.ndarray) -> None:
    """Tells a policy that has a method `end_rows` which rows, (B,) bool, are over until the next `reset`:
    any action will do there, and one that plans saves its decisions."""
    if callable(method := getattr(policy, "end_rows", None)):
        method(over)


def replace_action(policy: Policy, action: np.ndarray) -> None:
    """Tells a policy that has a method `replace_action` that these actions, (B, A), were taken at the last
    observation, not those that it gave."""
    if callable(method := getattr(policy, "replace_action", None)):
        method(action)


def generators(seeds: Sequence[int]) -> list[np.random.Generator]:
    """Gives one random stream per episode, another than that of an environment reset with the same seed."""
    return [np.random.default_rng([seed, 1]) for seed in seeds]


def bounded_box(action_space: gymnasium.Space) -> gymnasium.spaces.Box:
    """Gives `action_space` itself if it is a bounded, one-dimensional Box; ValueError otherwise."""
    box = action_space if isinstance(action_space, gymnasium.spaces.Box) else None
    if box is None or len(box.shape) != 1 or not box.is_bounded():
        raise ValueError(f"expected a bounded one-dimensional Box of actions, got {action_space}")
    return box


def into_box(actions: Sequence[np.ndarray], box: gymnasium.spaces.Box) -> np.ndarray:
    """Gives the actions (A,) of B rows as a batch (B, A) that the box allows, in its type."""
    return np.clip(np.stack(actions), box.low, box.high).astype(box.dtype)


def lack_of_skill(skill: float) -> float:
    """Gives 1 − `skill`, of a scripted policy; ValueError where that is no number from 0 to 1."""
    if not 0 <= skill <= 1:
        raise ValueError(f"skill is a number from 0 to 1, got {skill}")
    return 1.0 - skill


def check_batch(obs: dict[str, Any], rows: int) -> None:
    """Raises ValueError unless every key of `obs` has as many rows as the policy was reset with."""
    for key, value in obs.items():
        # Several cameras come as a dict of images.
        for array in value.values() if isinstance(value, dict) else [value]:
            if len(array) != rows:
                raise ValueError(
                    f"{key!r} has {len(array)} rows, the policy was reset with {rows} seeds; "
                    "call reset(seeds) with one seed per row, and act with a leading batch axis"
                )
