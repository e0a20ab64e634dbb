"""Episodes imagined side by side in one world: what the single and the vector environment have in common.

B rows, V cameras, H W pixels, S state size, A action size. Row i has noise of its own (`row_noise.py`), so
that what it imagines does not depend on how many rows there are, nor on when the others are reset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from gymnasium.error import ResetNeeded

from scd_envs.settings import Settings, start_pool, task_index
from scd_world.model.noise import row_noise
from scd_world.model.rollout_state import RolloutState
from scd_world.utils.precision import use_bf16
from scd_world.world.starts import StartState
from scd_world.world.world import World


@dataclass(frozen=True)
class EpisodeStart:
    """How an episode begins: from which recorded moment, and with which noise it goes on."""

    episode: int
    frame: int
    noise_seed: int
    task: int | None = None  # None: what was being done there


@dataclass
class BatchState:
    """Where B episodes stand: everything that a step changes."""

    imagined: RolloutState
    members: np.ndarray  # (members,) the row behind each place in the model's batch
    noise_seeds: np.ndarray  # (B,) int64, what each episode's noise is made from
    starts: np.ndarray  # (B, 2) episode, frame
    tasks: np.ndarray  # (B,) which of the schema's tasks
    steps: np.ndarray  # (B,)
    pixels: np.ndarray  # (B, V, H, W, 3) uint8
    state: np.ndarray  # (B, S) raw units
    reward: np.ndarray  # (B,) float64, of the last step
    probability: np.ndarray  # (B,) float64, of success
    uncertainty: np.ndarray  # (B,) float64, of the state; where the data has none, nothing
    terminated: np.ndarray  # (B,) bool
    truncated: np.ndarray  # (B,) bool

    def copy(self) -> BatchState:
        """A branch: stepping one leaves the other where it is."""
        arrays = {
            field.name: value.copy()
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), np.ndarray)
        }
        return BatchState(imagined=self.imagined.fork(), **arrays)


class ImaginedEpisodes:
    """B imagined episodes in one batched model. A row that is over stays as it is until it begins anew."""

    def __init__(self, world: World, num_rows: int, settings: Settings) -> None:
        self.world = world
        self.num_rows = num_rows
        self.num_steps, self.compiled = settings.num_steps, settings.compile
        self.horizon = settings.horizon or world.schema.horizon
        self.success_threshold = settings.success_threshold
        if settings.max_uncertainty is not None and not world.schema.state:
            raise ValueError(
                "max_uncertainty: this world has no state whose error it could tell; leave it out"
            )
        self.max_uncertainty = np.inf if settings.max_uncertainty is None else settings.max_uncertainty
        self.bf16 = use_bf16(settings.precision, world.device)
        self.pool = start_pool(world, settings.starts)
        self.task = None if settings.task is None else task_index(settings.task, world.schema.tasks)
        self.standing: BatchState | None = None

    @property
    def state(self) -> BatchState:
        if self.standing is None:
            raise ResetNeeded("no episode has begun: call reset() first")
        return self.standing

    @property
    def finished(self) -> np.ndarray:
        return self.state.terminated | self.state.truncated

    @property
    def task_texts(self) -> tuple[str, ...]:
        """What each row does, in words; AttributeError (as Gymnasium expects) where the data names none."""
        names = self.world.schema.tasks
        if not names:
            raise AttributeError("this world's data names no task")
        numbers = [self.task or 0] * self.num_rows if self.standing is None else self.standing.tasks
        return tuple(names[number] for number in numbers)

    def sample_start(
        self, rng: np.random.Generator, address: tuple[int, int] | None, task: int | None = None
    ) -> EpisodeStart:
        """A start drawn from the pool (for a task from those that show it), or the one asked for."""
        task = self.task if task is None else task
        # noise first: so it is the same, whether the moment is drawn or chosen
        noise_seed = int(rng.integers(2**63 - 1))
        pool = self.pool if task is None else self.world.starts.filter_by_task(task, self.pool)
        episode, frame = pool[rng.integers(len(pool))] if address is None else address
        return EpisodeStart(int(episode), int(frame), noise_seed, task)

    def start_rows(self, rows: np.ndarray, starts: Sequence[EpisodeStart]) -> None:
        """New episodes in `rows`, from these starts and the frames before them. The first call begins all."""
        context = self.world.config.window
        moments = [self.world.starts.get(s.episode, s.frame, context) for s in starts]
        moments = [
            moment if start.task is None else replace(moment, task=start.task)
            for moment, start in zip(moments, starts, strict=True)
        ]
        if len(rows) == self.num_rows:  # afresh, so that equal seeds give equal bits
            self.standing = self._blank(self.world.reset(moments))
            with self._precision():
                self.world.prepare(self.state.imagined, self.num_steps, self.compiled)
        else:
            self._restart(rows, moments)
        now = self.state
        for row, start, moment in zip(rows, starts, moments, strict=True):
            now.noise_seeds[row] = start.noise_seed
            now.starts[row], now.tasks[row] = (start.episode, start.frame), moment.task
            now.pixels[row], now.state[row] = moment.pixels[-1], moment.state[-1]  # as recorded, to the bit
        for array in (now.steps, now.reward, now.probability, now.uncertainty, now.terminated, now.truncated):
            array[rows] = 0

    def _restart(self, rows: np.ndarray, moments: Sequence[StartState]) -> None:
        """`rows` begin anew in the model's batch; those that had left it come back."""
        now = self.state
        staying = np.setdiff1d(now.members, rows)
        if len(staying) == 0:
            now.imagined, now.members = self.world.reset(moments), rows
            return
        if not np.isin(rows, now.members).all():
            places = np.flatnonzero(np.isin(now.members, staying))
            doubles = np.full(len(rows), places[0])  # any row will do to make room: it is overwritten
            now.imagined = self._select(np.concatenate([places, doubles]))
            now.members = np.concatenate([now.members[places], rows])
        at = [int(np.flatnonzero(now.members == row)[0]) for row in rows]
        self.world.reset_rows(now.imagined, at, moments)

    def drop_finished(self) -> None:
        """Rows that are over leave the model's batch, once they are half of it; not where each number of rows
        would be compiled anew."""
        if self.compiled:
            return
        now = self.state
        going_on = np.flatnonzero(~self.finished[now.members])
        if 0 < len(going_on) <= len(now.members) // 2:
            now.imagined, now.members = self._select(going_on), now.members[going_on]

    def _select(self, places: np.ndarray) -> RolloutState:
        return self.state.imagined.select(torch.as_tensor(places, device=self.world.device))

    def step(self, action: np.ndarray, acting: np.ndarray) -> None:
        """One step of the rows in `acting` (B,) bool; action float32 (B, A) in raw units.

        The other rows keep all they have; what the model imagines for those still in its batch is dropped.
        """
        now, schema = self.state, self.world.schema
        now.reward[:] = 0
        if not acting.any():
            return
        act = acting[now.members]  # (members,)
        device = self.world.device
        seeds, steps = (torch.from_numpy(of[now.members]).to(device) for of in (now.noise_seeds, now.steps))
        noise = row_noise(seeds, steps, self.world.frame_shape)
        idle = np.mean([schema.action_low, schema.action_high], axis=0, dtype=np.float32)
        action = np.where(act[:, None], action[now.members], idle)
        with self._precision():
            now.imagined = self.world.step(now.imagined, action, noise, self.num_steps, self.compiled)

        seen, rows = self.world.outputs(now.imagined), now.members[act]
        now.pixels[rows], now.state[rows] = seen["pixels"][act], seen["state"][act]
        now.reward[rows] = seen["reward"][act] if schema.reward else 0
        now.probability[rows] = seen["success"][act] if schema.success else 0
        now.uncertainty[rows] = seen["uncertainty"][act]
        now.steps[rows] += 1
        now.terminated[rows] = now.probability[rows] > self.success_threshold
        now.truncated[rows] = now.steps[rows] >= self.horizon
        now.truncated[rows] |= now.uncertainty[rows] > self.max_uncertainty

    def info(self, row: int) -> dict[str, Any]:
        """`episode` itself is a key that gymnasium's RecordEpisodeStatistics keeps for itself."""
        now = self.state
        known = {"uncertainty": float(now.uncertainty[row])} if self.world.schema.state else {}
        return {
            "is_success": bool(now.probability[row] > self.success_threshold),
            "success_probability": float(now.probability[row]),
            "start_episode": int(now.starts[row, 0]),
            "start_frame": int(now.starts[row, 1]),
        } | known

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.bf16)

    def _blank(self, imagined: RolloutState) -> BatchState:
        B, schema = self.num_rows, self.world.schema
        return BatchState(
            imagined=imagined,
            members=np.arange(B),
            noise_seeds=np.zeros(B, np.int64),
            starts=np.zeros((B, 2), np.int64),
            tasks=np.zeros(B, np.int64),
            steps=np.zeros(B, np.int64),
            pixels=np.zeros((B, len(schema.cameras), schema.height, schema.width, 3), np.uint8),
            state=np.zeros((B, len(schema.state)), np.float32),
            reward=np.zeros(B),
            probability=np.zeros(B),
            uncertainty=np.zeros(B),
            terminated=np.zeros(B, bool),
            truncated=np.zeros(B, bool),
        )
