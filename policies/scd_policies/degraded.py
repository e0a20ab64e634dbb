"""Degradations of any policy: delay, slowness, offset, noise, stopping early; they can be combined.

One good policy so gives a family of policies of known and different skill: what a ranking is tested with.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from scd_policies.policy import (
    Policy,
    ReportingPolicy,
    bounded_box,
    end_rows,
    generators,
    replace_action,
)


@dataclass(frozen=True)
class Degradation:
    """Says how a policy is degraded, in the order in which it is applied; actions in raw units.

    delay: steps that pass before an action is taken; until then the first one is repeated.
    slow: the share of the way from the last action to the wanted one that is made per step, in (0, 1].
    offset: added to every action, one value per dimension; () adds nothing.
    noise: standard deviation of what is added to each action, sampled anew at every step.
    stop_after: steps after which the last action is repeated for ever; None: never.

    Raises ValueError for a value out of its range.
    """

    delay: int = 0
    slow: float = 1.0
    offset: Sequence[float] = ()
    noise: float = 0.0
    stop_after: int | None = None

    def __post_init__(self) -> None:
        if self.delay < 0 or self.noise < 0:
            raise ValueError(f"delay and noise are 0 or more; got {self.delay} and {self.noise}")
        if not isinstance(self.offset, Sequence):
            raise ValueError(
                f"offset has one value for each dimension of an action; got {self.offset} (where a list "
                "means a value for each episode, give a list of lists: offset: [[5, 0]])"
            )
        if not 0 < self.slow <= 1:
            raise ValueError(f"slow is a share of the way, above 0 and at most 1; got {self.slow}")
        if self.stop_after is not None and self.stop_after < 1:
            raise ValueError(f"stop_after counts steps, 1 or more; got {self.stop_after}")


class DegradedPolicy:
    """Acts as `policy` does, degraded; its actions stay inside the action space."""

    def __init__(self, policy: Policy, action_space: gymnasium.Space, degradation: Degradation) -> None:
        self._policy, self._degradation, self._box = policy, degradation, bounded_box(action_space)
        if len(degradation.offset) not in (0, *self._box.shape):
            raise ValueError(
                f"offset has {len(degradation.offset)} values, an action {self._box.shape[0]}: one for each"
            )
        self._offset = np.asarray(degradation.offset or 0.0)

    def reset(self, seeds: Sequence[int]) -> None:
        self._policy.reset(seeds)
        # A stream of its own: the policy decides as it would without noise.
        self._rngs = [rng.spawn(1)[0] for rng in generators(seeds)]
        self._wanted: deque[np.ndarray] = deque(maxlen=self._degradation.delay + 1)
        self._last: np.ndarray | None = None
        self._steps = 0

    def act(self, obs: dict[str, Any]) -> np.ndarray:
        how = self._degradation
        self._wanted.append(np.asarray(self._policy.act(obs), np.float64))
        self._steps += 1
        if self._last is None:
            self._reached = self._last = self._wanted[0]
        if how.stop_after is None or self._steps <= how.stop_after:
            # Before `delay` actions have passed, the deque's first is the first of all.
            self._reached = self._reached + how.slow * (self._wanted[0] - self._reached)
            noise = np.stack([rng.standard_normal(self._box.shape) for rng in self._rngs])
            self._last = self._reached + self._offset + how.noise * noise
        action = np.clip(self._last, self._box.low, self._box.high).astype(self._box.dtype)
        replace_action(self._policy, action)
        return action

    def end_rows(self, over: np.ndarray) -> None:
        end_rows(self._policy, over)

    @property
    def decision_info(self) -> dict[str, np.ndarray]:
        """What the policy tells of its decisions; nothing where it tells none."""
        return self._policy.decision_info if isinstance(self._policy, ReportingPolicy) else {}
