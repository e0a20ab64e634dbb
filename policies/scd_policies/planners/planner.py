"""A policy that plans: each row plans from what it has observed, takes the first steps, and plans again.

Rows plan one after the other, each with a batch of its own plans: so row i depends on its own seed and
observations to the last bit, whatever the other rows are (one batch over all rows rounds otherwise with their
number, and one choice that flips sends an episode elsewhere). A batch of some dozens of plans keeps a CPU
busy already.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from scd_policies import is_checkpoint, make
from scd_policies.degraded import Degradation, DegradedPolicy
from scd_policies.planners.config import PlannerConfig
from scd_policies.planners.history import History
from scd_policies.planners.imagination import Imagination, open_imagination
from scd_policies.planners.playing import Played, play_policy
from scd_policies.policy import Policy, bounded_box, check_batch, generators
from scd_world.robot_data.schema import DataSchema
from scd_world.world.starts import StartState
from scd_world.world.world import World

LEAST_OVERLAP = 0.1  # share of a world's action range that an environment's must cover: else other units


@dataclass
class Row:
    """Holds one episode: what it has seen, its random numbers, and the plan in force."""

    history: History
    rng: np.random.Generator
    queue: deque[np.ndarray] = field(default_factory=deque)  # actions that are still to be taken
    rest: Tensor | None = None  # (H − k, A) raw units: what of the last plan is not taken
    value: float = np.nan  # of the plan in force, raw reward per step
    seconds: float = 0.0  # that the last decision took; 0: a plan went on

    def seed(self) -> int:
        return int(self.rng.integers(2**31))


class Planner(ABC):
    """Acts by plans made in a world.

    action_space: of the environment that it acts in. world: a folder, a Hub id, a World, or an `Imagination`.
    settings: those of the planner's config.

    Raises ValueError for settings out of their range, for a world that cannot score or play plans, and for
    actions that are not the world's.
    """

    def __init__(
        self,
        action_space: gymnasium.Space,
        world: str | Path | World | Imagination,
        config: PlannerConfig,
    ) -> None:
        self.config, self.box = config, bounded_box(action_space)
        base_needs_images = needs_images(config)
        self.imagination = open_imagination(world, config, base_needs_images)
        self.schema = self.imagination.schema
        low, high = common_bounds(self.box, self.schema)
        self.bounds = low.to(self.imagination.device), high.to(self.imagination.device)
        self.task = find_task(config.task, self.schema)
        self.base = make_base(config, self.box, self.schema)
        self._rows: list[Row] = []
        self._over: np.ndarray = np.zeros(0, bool)  # rows that are

    @abstractmethod
    def plan(self, row: Row, start: StartState) -> Played:
        """Gives one plan from this moment on: (1, H, A) actions and its value (1,)."""

    def reset(self, seeds: Sequence[int]) -> None:
        frames, images = self.imagination.frames, self.imagination.needs_images
        self._rows = [Row(History(self.schema, frames, images, self.task), rng) for rng in generators(seeds)]
        self._over = np.zeros(len(self._rows), bool)

    def end_rows(self, over: np.ndarray) -> None:
        """Plans no more for the rows that are over, (B,) bool: what they do counts for nothing."""
        self._over = np.asarray(over, bool)

    def act(self, obs: dict[str, Any]) -> np.ndarray:
        check_batch(obs, len(self._rows))
        return np.stack(
            [
                row.history.actions[-1].astype(self.box.dtype)
                if self._over[i] and row.history.actions
                else self._act(row, pick_row(obs, i))
                for i, row in enumerate(self._rows)
            ]
        )

    def replace_action(self, action: np.ndarray) -> None:
        """Learns what was done instead, (B, A), at the newest observations."""
        for row, taken, over in zip(self._rows, action, self._over, strict=True):
            if not over:
                row.history.actions[-1] = np.asarray(taken, np.float32)

    def _act(self, row: Row, obs: dict[str, Any]) -> np.ndarray:
        row.history.observe(obs)
        row.seconds = 0.0
        if not row.queue:
            began = time.perf_counter()
            planned, value = self.plan(row, row.history.start())
            if not value.isfinite().all():
                raise FloatingPointError(
                    "the planner's world imagines what is no number under every plan that was tried: it was "
                    "trained to this, or stands where its recordings never were"
                )
            taken = planned[0, : self.config.execute].detach().cpu().numpy()
            row.queue.extend(np.clip(taken, self.box.low, self.box.high).astype(self.box.dtype))
            row.rest, row.value = planned[0, self.config.execute :].detach(), float(value[0])
            row.seconds = time.perf_counter() - began
        action = row.queue.popleft()
        row.history.act(action)
        return action

    @property
    def decision_info(self) -> dict[str, np.ndarray]:
        """Gives (B,) of the last `act`: `plan_value`, what the plan in force promised when it was made, in
        raw reward per step; `plan_seconds`, 0 where a plan just went on."""
        return {
            "plan_value": np.array([row.value for row in self._rows]),
            "plan_seconds": np.array([row.seconds for row in self._rows]),
        }

    def propose(self, row: Row, start: StartState, count: int) -> Played:
        """Plays `count` proposals of the base policy. It begins anew at each plan: how it came here it does
        not know, for what another policy remembers cannot be copied in general."""
        assert self.base is not None
        seeds = [row.seed() for _ in range(count)]
        with torch.no_grad():
            return play_policy(self.imagination, start, self.base, seeds, self.bounds, self.config)


def pick_row(obs: dict[str, Any], i: int) -> dict[str, Any]:
    return {key: pick_row(value, i) if isinstance(value, dict) else value[i] for key, value in obs.items()}


def needs_images(config: PlannerConfig) -> bool:
    if config.base_needs_images is not None:
        return config.base_needs_images
    return isinstance(config.base, str) and (config.base == "lerobot" or is_checkpoint(config.base))


def make_base(config: PlannerConfig, box: gymnasium.spaces.Box, schema: DataSchema) -> Policy | None:
    """Builds the policy that proposes; None where none is named."""
    base, kwargs = config.base, dict(config.base_kwargs)
    if base is None:
        return None
    if isinstance(base, str) and (base == "lerobot" or is_checkpoint(base)):
        shown = {"views": schema.views, "recorded": schema.recorded_sizes, "camera_keys": schema.lerobot_keys}
        task = {"task": config.task or "".join(schema.tasks[:1]), "device": config.device}
        path = {} if base == "lerobot" else {"path": base}
        base = make("lerobot", box, **(shown | task | path | kwargs))
    elif isinstance(base, str):
        base = make(base, box, **kwargs)
    return DegradedPolicy(base, box, Degradation(**config.base_degrade)) if config.base_degrade else base


def find_task(task: str | None, schema: DataSchema) -> int:
    """Gives the index of the task; ValueError where it is none of the world's, or one has to be named."""
    if task is None:
        if len(schema.tasks) > 1:
            raise ValueError(f"this world knows several tasks: give task=<one of {list(schema.tasks)}>")
        return 0
    if task not in schema.tasks:
        raise ValueError(f"task={task!r}: this world knows {list(schema.tasks)}")
    return schema.tasks.index(task)


def common_bounds(box: gymnasium.spaces.Box, schema: DataSchema) -> tuple[Tensor, Tensor]:
    """Gives lowest and highest action (A,), raw units, that both the environment and the world take: of an
    action that never moved the recorded value twice, for the world says the same of all others, and what a
    robot would do nobody knows.

    ValueError where they have other actions: another number, or ranges that hardly meet.
    """
    if box.shape != (len(schema.action),):
        raise ValueError(
            f"the environment takes {box.shape[0]} actions, and the planner's world was trained on "
            f"{len(schema.action)}, {list(schema.action)}: plan in a world of this robot's own recordings"
        )
    low, high = (np.array(bound, np.float32) for bound in schema.action_bounds)
    both = np.maximum(low, box.low), np.minimum(high, box.high)
    share = (both[1] - both[0]) / (high - low)
    for d in np.flatnonzero(share < LEAST_OVERLAP):
        if d not in schema.constant_actions:
            raise ValueError(
                f"action dimension {d} ({schema.action[d]!r}) is [{box.low[d]:g}, {box.high[d]:g}] in the "
                f"environment and was [{low[d]:g}, {high[d]:g}] in the world's recordings: are these other "
                "units? A planner needs both in the recorded ones"
            )
    for d in schema.constant_actions:
        recorded = (schema.action_low[d] + schema.action_high[d]) / 2
        both[0][d] = both[1][d] = np.clip(recorded, box.low[d], box.high[d])
    return torch.from_numpy(both[0]), torch.from_numpy(both[1])
