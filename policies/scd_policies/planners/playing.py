"""Plans are played: given actions, or what a policy does where they lead. N plans, H steps, A action."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scd_policies.planners.config import PlannerConfig
from scd_policies.planners.imagination import Imagination
from scd_policies.planners.scoring import plan_value
from scd_policies.policy import Policy
from scd_world.world.starts import StartState


class Played(NamedTuple):
    """N plans that were played."""

    action: Tensor  # (N, H, A) raw units
    value: Tensor  # (N,) raw reward per step

    def best(self) -> Played:
        """Gives the plan of the highest value alone; of equals the first."""
        i = int(self.value.argmax())
        return Played(self.action[i : i + 1], self.value[i : i + 1])


def play_actions(
    imagination: Imagination, start: StartState, action: Tensor, config: PlannerConfig, seed: int
) -> Played:
    """Plays the actions (N, H, A), raw units, from one moment; differentiable where the imagination is."""
    s = imagination.begin(start, len(action), seed)
    outcomes = []
    for h in range(action.shape[1]):
        s, outcome = imagination.step(s, action[:, h])
        outcomes.append(outcome)
    return Played(action, plan_value(outcomes, config, imagination.schema))


def play_policy(
    imagination: Imagination,
    start: StartState,
    policy: Policy,
    seeds: Sequence[int],
    bounds: tuple[Tensor, Tensor],
    config: PlannerConfig,
) -> Played:
    """Plays a policy that begins anew, once per seed (N), from one moment; inside `bounds` (A,), raw."""
    low, high = bounds
    policy.reset(seeds)
    s = imagination.begin(start, len(seeds), int(seeds[0]))
    actions, outcomes = [], []
    for _ in range(config.horizon):
        proposed = np.asarray(policy.act(imagination.observation(s)), np.float32)
        action = torch.from_numpy(proposed).to(low.device).clamp(low, high)
        s, outcome = imagination.step(s, action)
        actions.append(action)
        outcomes.append(outcome)
    return Played(torch.stack(actions, dim=1), plan_value(outcomes, config, imagination.schema))


def joined(played: Sequence[Played]) -> Played:
    """Puts plans together."""
    return Played(*(torch.cat(part) for part in zip(*played, strict=True)))
