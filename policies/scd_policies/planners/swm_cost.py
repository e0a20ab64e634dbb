"""The cost that stable-worldmodel's solvers minimize, so that they plan in a world of ours unchanged.

    cost = WorldCost("envs/scd_envs/worlds/pusht")
    solver = swm.solver.CEMSolver(cost, num_samples=100, n_steps=5, topk=10, var_scale=0.3)
    policy = swm.policy.WorldModelPolicy(solver, swm.PlanConfig(horizon=10, receding_horizon=5), cost.process)

B environments, N plans, H steps, A action.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scd_policies.planners.config import PlannerConfig
from scd_policies.planners.history import STATE_KEYS, History
from scd_policies.planners.imagination import open_imagination
from scd_policies.planners.planner import find_task
from scd_policies.planners.playing import play_actions
from scd_world.robot_data.schema import DataSchema
from scd_world.world.starts import StartState
from scd_world.world.world import World


class ActionScaler:
    """Turns raw actions (…, A) into [-1, 1] of the recorded range, and back, clipped: what solvers sample."""

    def __init__(self, schema: DataSchema) -> None:
        low, high = map(np.array, schema.action_bounds)
        self.middle, self.half = (low + high) / 2, (high - low) / 2

    def transform(self, x: np.ndarray) -> np.ndarray:
        return ((x - self.middle) / self.half).astype(np.float32)

    def inverse_transform(self, x: np.ndarray) -> np.ndarray:
        return (self.middle + np.clip(x, -1, 1) * self.half).astype(np.float32)


class WorldCost:
    """Answers stable-worldmodel's cost protocol: minus the value of plans in a world's state prior.

    world: a folder, a Hub id, or a World. settings: `discount`, `success_value`, `uncertainty_penalty`,
    `task`, `device`; the horizon is the solver's. `process` goes to its WorldModelPolicy.

    Raises ValueError for a world without a state prior, or without reward and success.
    """

    def __init__(self, world: str | Path | World, **settings: Any) -> None:
        self.config = replace(PlannerConfig.of(settings), state_only=True)
        self.imagination = open_imagination(world, self.config, base_needs_images=False)
        if self.imagination.needs_images:
            raise ValueError(
                "this world finds objects in its pictures, and costs are told of the state alone: plan in it "
                "with scd_policies' planners"
            )
        self.schema = self.imagination.schema
        self.task = find_task(self.config.task, self.schema)
        self.process = {"action": ActionScaler(self.schema)}

    def get_cost(self, info_dict: Mapping[str, Any], action_candidates: Tensor) -> Tensor:
        """Gives (B, N), differentiable with respect to the actions.

        info_dict: `agent_pos` and `environment_state`, whichever the world has, raw units, (B, N, D) or with
        a time axis (B, N, T, D), the newest last. Of T ≥ 2 frames the last two tell the velocity, with
        `action` (B, N, T, A) as `process` scales it; of one, everything is at rest.
        action_candidates: (B, N, H, k·A) in [-1, 1], k actions each in turn; beyond, they are clipped.

        Raises ValueError for other sizes.
        """
        A = len(self.schema.action)
        if action_candidates.ndim != 4 or action_candidates.shape[-1] % A:
            raise ValueError(
                f"expected action candidates (B, N, H, k·{A}), this world's actions being "
                f"{list(self.schema.action)}; got {tuple(action_candidates.shape)}"
            )
        starts = [self.start(info_dict, b) for b in range(len(action_candidates))]
        return torch.stack([self.costs(*each) for each in zip(starts, action_candidates, strict=True)])

    def costs(self, start: StartState, candidates: Tensor) -> Tensor:
        """Gives (N,), of plans (N, H, k·A) from one moment."""
        scaler, device = self.process["action"], self.imagination.device
        middle, half = (
            torch.tensor(v, dtype=torch.float32, device=device) for v in (scaler.middle, scaler.half)
        )
        u = candidates.to(device, torch.float32).reshape(len(candidates), -1, len(middle)).clamp(-1, 1)
        played = play_actions(self.imagination, start, middle + u * half, self.config, seed=0)
        return -played.value.to(candidates)

    def start(self, info: Mapping[str, Any], b: int) -> StartState:
        """Gives the moment at which environment b stands; all of its N copies say the same."""
        names = [key for key in STATE_KEYS if getattr(self.schema, key)]
        if missing := [key for key in names if key not in info]:
            raise ValueError(
                f"info_dict lacks {missing}, which this world's state is made of: {sorted(info)}"
            )
        frames = {key: in_time(info[key], b) for key in names}
        history = History(self.schema, 2, images=False, task=self.task)
        if len(frames[names[0]]) > 1 and "action" in info:
            history.observe({key: value[-2] for key, value in frames.items()})
            history.act(self.process["action"].inverse_transform(in_time(info["action"], b)[-2]))
        history.observe({key: value[-1] for key, value in frames.items()})
        return history.start()


def in_time(value: Any, b: int) -> np.ndarray:
    """Gives (T, D): the first copy's frames of a value (B, N, D) or (B, N, T, D)."""
    first = value[b][0]
    array = first.detach().cpu().numpy() if isinstance(first, Tensor) else np.asarray(first)
    return array.reshape(-1, array.shape[-1])
