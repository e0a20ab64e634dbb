"""Episodes imagined side by side in one world: what the single and the vector environment have in common.

B rows, V cameras, H W pixels, S state size, A action size, N numbers of what was found by sight. Row i has
noise of its own (`model/noise.py`), so that what it imagines depends neither on how many rows there are nor
on when the others are reset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from gymnasium.error import ResetNeeded
from torch import Tensor

from scd_envs.settings import Settings, start_pool, task_index
from scd_world.model.noise import row_noise
from scd_world.model.rollout_state import RolloutState
from scd_world.robot_data.schema import DataSchema
from scd_world.utils.precision import use_bf16
from scd_world.world.readout import Readout, not_finite
from scd_world.world.starts import StartState
from scd_world.world.state_path import StatePath
from scd_world.world.transfer import HostCopy
from scd_world.world.world import World


@dataclass(frozen=True)
class EpisodeStart:
    """Says how an episode begins: from which recorded frame, and with which noise it goes on."""

    episode: int
    frame: int
    noise_seed: int
    task: int | None = None  # index into the schema's tasks; None: the recorded episode's


@dataclass
class BatchState:
    """Holds the state of B episodes: everything that a step changes."""

    rollout: RolloutState
    members: np.ndarray  # (M,) int, the row behind each place in the model's batch
    noise_seeds: np.ndarray  # (B,) int64, from which each episode's noise is made
    starts: np.ndarray  # (B, 2) int64, episode and frame
    tasks: np.ndarray  # (B,) int64, index into the schema's tasks
    steps: np.ndarray  # (B,) int64, since the start
    pixels: Tensor  # (B, V, H, W, 3) uint8, on the host, or where the model is; V = 0: none is drawn
    state: np.ndarray  # (B, S) raw units
    reward: np.ndarray  # (B,) float64, of the last step
    probability: np.ndarray  # (B,) float64, of success
    uncertainty: np.ndarray  # (B,) float64, of the state; NaN where no state prior predicts it
    image_uncertainty: np.ndarray  # (B,) float64, of the pictures; 1 where no filter predicts it
    terminated: np.ndarray  # (B,) bool
    truncated: np.ndarray  # (B,) bool
    objects: np.ndarray  # (B, N) float32, px: where they are in the pictures

    def copy(self) -> BatchState:
        """Copies the state: stepping one leaves the other as it is."""
        arrays = {
            field.name: value.copy()
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), np.ndarray)
        }
        return BatchState(rollout=self.rollout.fork(), pixels=self.pixels.clone(), **arrays)


class ImaginedEpisodes:
    """Runs B imagined episodes in one batched model.

    A row that is over stays as it is until it is started again. Images are large and numbers small: numbers
    always come to the host, which decides what is over; images come with them, or with `on_device` stay where
    the model is.

    Raises ValueError for settings that this world cannot follow: a start or a task that it does not have,
    `max_uncertainty` or `max_image_uncertainty` where it predicts no such uncertainty, `render_images=False`
    where its images count.
    """

    def __init__(self, world: World, num_rows: int, settings: Settings, on_device: bool = False) -> None:
        self.world = world
        self.image_device = world.device if on_device else torch.device("cpu")
        self.num_rows = num_rows
        self.has_uncertainty = bool(world.schema.state) and world.model.prior.has_uncertainty
        self.has_uncertainty &= settings.with_uncertainty
        self.has_image_uncertainty = settings.render_images and world.model.tells_image_error
        self.render_images = settings.render_images
        # what the rows are stepped by
        self.path: World | StatePath = (
            world if settings.render_images else StatePath(world, settings.with_uncertainty)
        )
        self.compiled, self.records_steps = settings.compile, world.device.type == "cuda"
        self.follow(settings)
        self.bf16 = use_bf16(settings.precision, world.device)
        self.pool = start_pool(world, settings.starts)
        self.pools: dict[int, np.ndarray] = {}  # of each task, as they are asked for
        self.task = None if settings.task is None else task_index(settings.task, world.schema.tasks)
        bounds = world.schema.action_low, world.schema.action_high
        self.idle_action = np.mean(bounds, axis=0, dtype=np.float32)  # of rows that are over
        self.batch: BatchState | None = None

    def follow(self, settings: Settings) -> None:
        """Takes over what may change while episodes run: `CHANGEABLE` of these settings."""
        if settings.max_uncertainty is not None and not self.has_uncertainty:
            missing = "state prior (prior=none)" if self.world.schema.state else "state"
            raise ValueError(
                f"max_uncertainty: this world has no {missing}, so it predicts no uncertainty; leave it out"
            )
        if settings.max_image_uncertainty is not None and not self.has_image_uncertainty:
            raise ValueError(
                "max_image_uncertainty: this world has no filter that was measured "
                "(model.state_filter=true), so it does not predict how far off its pictures are; leave it out"
            )
        self.num_steps = settings.num_steps
        self.horizon = settings.horizon or self.world.schema.horizon
        self.success_threshold = settings.success_threshold
        self.max_uncertainty, self.max_image_uncertainty = (
            np.inf if bound is None else bound
            for bound in (settings.max_uncertainty, settings.max_image_uncertainty)
        )

    @property
    def state(self) -> BatchState:
        if self.batch is None:
            raise ResetNeeded("no episode has begun: call reset() first")
        return self.batch

    @property
    def finished(self) -> np.ndarray:
        """Says which rows are over: (B,) bool."""
        return self.state.terminated | self.state.truncated

    @property
    def task_texts(self) -> tuple[str, ...]:
        """Gives each row's task in words; AttributeError (as Gymnasium expects) where the data names none."""
        names = self.world.schema.tasks
        if not names:
            raise AttributeError("this world's data names no task")
        tasks = [self.task or 0] * self.num_rows if self.batch is None else self.batch.tasks
        return tuple(names[task] for task in tasks)

    def sample_start(
        self, rng: np.random.Generator, address: tuple[int, int] | None, task: int | None = None
    ) -> EpisodeStart:
        """Samples a start from the pool (with a task: from its episodes), or takes the given address."""
        task = self.task if task is None else task
        # noise first: so it is the same, whether the start is sampled or given
        noise_seed = int(rng.integers(2**63 - 1))
        pool = self._pool_of(task)
        episode, frame = pool[rng.integers(len(pool))] if address is None else address
        return EpisodeStart(int(episode), int(frame), noise_seed, task)

    def _pool_of(self, task: int | None) -> np.ndarray:
        """Gives the addresses (N, 2) to sample from, with a task those of its episodes."""
        if task is None:
            return self.pool
        if task not in self.pools:
            self.pools[task] = self.world.starts.filter_by_task(task, self.pool)
        return self.pools[task]

    def start_rows(self, rows: np.ndarray, starts: Sequence[EpisodeStart]) -> None:
        """Begins episodes in `rows`, from these starts and their contexts; the first call begins all rows."""
        context = self.world.config.window if self.render_images else 1
        recorded = [self.world.starts.get(s.episode, s.frame, context) for s in starts]
        recorded = [
            found if start.task is None else replace(found, task=start.task)
            for found, start in zip(recorded, starts, strict=True)
        ]
        images = self._shown_first(recorded)
        if len(rows) == self.num_rows:  # afresh, so that equal seeds give equal bits
            self.batch = self._new_batch(self.path.reset(recorded), images)
            if self.render_images:
                with self._precision():
                    self.world.prepare(self.state.rollout, self.num_steps, self.compiled)
        else:
            self._restart(rows, recorded)
            put_rows(self.state.pixels, rows, images)  # as recorded, to the bit
        now = self.state
        now.noise_seeds[rows] = [start.noise_seed for start in starts]
        now.starts[rows] = [(start.episode, start.frame) for start in starts]
        now.tasks[rows] = [found.task for found in recorded]
        now.state[rows] = [found.state[-1] for found in recorded]
        told = now.reward, now.probability, now.uncertainty, now.image_uncertainty
        for array in (now.steps, *told, now.terminated, now.truncated):
            array[rows] = 0
        if now.objects.size:  # found by whoever starts from it
            objects = self.world.decode_objects(now.rollout.state).float().cpu().numpy()
            started = np.isin(now.members, rows)
            now.objects[now.members[started]] = objects[started]

    def _restart(self, rows: np.ndarray, recorded: Sequence[StartState]) -> None:
        """Begins `rows` again in the model's batch; those that had left it come back."""
        now = self.state
        staying = np.setdiff1d(now.members, rows)
        if len(staying) == 0:
            now.rollout, now.members = self.path.reset(recorded), rows
            return
        if not np.isin(rows, now.members).all():
            places = np.flatnonzero(np.isin(now.members, staying))
            filler = np.full(len(rows), places[0])  # any row will do to make room: it is overwritten
            now.rollout = self._select(np.concatenate([places, filler]))
            now.members = np.concatenate([now.members[places], rows])
        place = np.zeros(self.num_rows, np.int64)
        place[now.members] = np.arange(len(now.members))
        self.path.reset_rows(now.rollout, place[rows], recorded)

    def drop_finished(self) -> None:
        """Takes the rows that are over out of the model's batch, once they are half of it; not where each
        batch size would be compiled anew. On a GPU, which records and keeps a step for each batch size, some
        stay, and sizes are powers of two."""
        if self.compiled:
            return
        now = self.state
        over = self.finished[now.members]
        running, count = np.flatnonzero(~over), int((~over).sum())
        size = 1 << (count - 1).bit_length() if self.records_steps else count
        if 0 < count <= size <= len(now.members) // 2:
            places = np.sort(np.concatenate([running, np.flatnonzero(over)[: size - count]]))
            now.rollout, now.members = self._select(places), now.members[places]

    def _select(self, places: np.ndarray) -> RolloutState:
        return self.state.rollout.select(torch.as_tensor(places, device=self.world.device))

    def step(self, action: np.ndarray, acting: np.ndarray) -> None:
        """Steps the rows in `acting` (B,) bool; action float32 (B, A) in raw units.

        The other rows stay as they are; what the model imagines for those still in its batch is dropped.
        FloatingPointError where rows imagined what is no number: they stay as they were, and are over; all
        others have taken their step.
        """
        now, schema = self.state, self.world.schema
        now.reward[:] = 0
        if not acting.any():
            return
        active = acting[now.members]  # (M,)
        members = now.members
        readout = self._imagine(np.where(active[:, None], action[members], self.idle_action))
        stays = self.image_device == self.world.device
        images = None if stays else HostCopy(readout.pixels)  # on their way while the host does what follows
        out, wrong = readout.wait_for_all()
        failed = np.logical_or.reduce([*wrong.values(), ~active]) & active
        active &= ~failed
        rows = members[active]
        now.state[rows], now.objects[rows] = out.state[active], out.objects[active]
        now.reward[rows] = out.reward[active] if schema.reward else 0
        now.probability[rows] = out.success[active] if schema.success else 0
        now.uncertainty[rows] = out.uncertainty[active]
        now.image_uncertainty[rows] = out.image_uncertainty[active]
        now.steps[rows] += 1
        now.terminated[rows] = now.probability[rows] > self.success_threshold
        now.truncated[rows] = now.steps[rows] >= self.horizon
        now.truncated[rows] |= now.uncertainty[rows] > self.max_uncertainty
        now.truncated[rows] |= now.image_uncertainty[rows] > self.max_image_uncertainty
        self._show(readout.pixels if images is None else images.wait(), active)
        if failed.any():
            now.truncated[members[failed]] = True
            rows_of = {name: by_row(there & failed, members, self.num_rows) for name, there in wrong.items()}
            raise not_finite({name: there for name, there in rows_of.items() if there.any()}, readout.steps)

    def _imagine(self, action: np.ndarray) -> Readout:
        """Steps the rows of the model's batch; action (M, A)."""
        now = self.state
        if isinstance(self.path, StatePath):
            now.rollout = self.path.step(now.rollout, action)
        else:
            seeds, steps = (torch.from_numpy(of[now.members]) for of in (now.noise_seeds, now.steps))
            noise = row_noise(seeds, steps, self.world.frame_shape, self.world.device)
            with self._precision():
                now.rollout = self.world.step(now.rollout, action, noise, self.num_steps, self.compiled)
        return self.path.readout(now.rollout)

    def _shown_first(self, recorded: Sequence[StartState]) -> Tensor:
        """Gives the images (r, V, H, W, 3) that these starts show; of no camera, where none is drawn."""
        if not self.render_images:
            shape = image_shape(len(recorded), self.world.schema, drawn=False)
            return torch.zeros(shape, dtype=torch.uint8, device=self.image_device)
        return torch.from_numpy(np.stack([found.pixels[-1] for found in recorded])).to(self.image_device)

    def _show(self, pixels: Tensor, active: np.ndarray) -> None:
        """Takes over the images (M, V, H, W, 3) of those rows of the model's batch that are active."""
        now = self.state
        if np.array_equal(now.members, np.arange(self.num_rows)):  # the new tensor, but for the rows at rest
            if len(rest := np.flatnonzero(~active)):
                put_rows(pixels, rest, take_rows(now.pixels, rest))
            now.pixels = pixels
        else:
            put_rows(now.pixels, now.members[active], take_rows(pixels, np.flatnonzero(active)))

    def columns(self) -> dict[str, np.ndarray]:
        """Gives what info holds, of all rows: key → (B,), of objects (B, N). `uncertainty` and
        `image_uncertainty` are left out where the world predicts none, `objects` where it finds none. (The
        key `episode` belongs to Gymnasium's RecordEpisodeStatistics.)"""
        now = self.state
        columns = {
            "is_success": now.terminated.copy(),  # as the threshold was at that step
            "success_probability": now.probability,
            "start_episode": now.starts[:, 0],
            "start_frame": now.starts[:, 1],
        }
        columns |= {"uncertainty": now.uncertainty} if self.has_uncertainty else {}
        columns |= {"image_uncertainty": now.image_uncertainty} if self.has_image_uncertainty else {}
        return columns | ({"objects": now.objects} if now.objects.size else {})

    def info(self, row: int) -> dict[str, Any]:
        """Gives a row's info, as Python's own numbers; objects as an array."""
        columns = self.columns()
        objects = {"objects": columns.pop("objects")[row].copy()} if "objects" in columns else {}
        return {key: values[row].item() for key, values in columns.items()} | objects

    def go_on_from(self, batch: BatchState) -> None:
        """Takes over a copy of a state that `check_state` let pass."""
        self.batch = batch.copy()
        self.batch.pixels = self.batch.pixels.to(self.image_device)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.bf16)

    def _new_batch(self, rollout: RolloutState, pixels: Tensor) -> BatchState:
        specs = array_specs(self.num_rows, self.world)
        arrays: dict[str, Any] = {name: np.zeros(shape, dtype) for name, (shape, dtype) in specs.items()}
        return BatchState(rollout=rollout, members=np.arange(self.num_rows), pixels=pixels, **arrays)


def array_specs(B: int, world: World) -> dict[str, tuple[tuple[int, ...], type]]:
    """Gives shape and type of the arrays in a BatchState of B rows, but those of its members."""
    return {
        **dict.fromkeys(("noise_seeds", "tasks", "steps"), ((B,), np.int64)),
        "starts": ((B, 2), np.int64),
        "state": ((B, len(world.schema.state)), np.float32),
        "objects": ((B, len(world.codec.config.found)), np.float32),
        **dict.fromkeys(("reward", "probability", "uncertainty", "image_uncertainty"), ((B,), np.float64)),
        **dict.fromkeys(("terminated", "truncated"), ((B,), np.bool_)),
    }


def image_shape(B: int, schema: DataSchema, drawn: bool = True) -> tuple[int, int, int, int, int]:
    """Gives (B, V, H, W, 3); V = 0 where no image is drawn."""
    return B, len(schema.cameras) if drawn else 0, schema.height, schema.width, 3


def by_row(places: np.ndarray, members: np.ndarray, num_rows: int) -> np.ndarray:
    """Gives (B,) bool of the rows, where (M,) bool tells of those behind the places of the model's batch."""
    rows = np.zeros(num_rows, bool)
    rows[members[places]] = True
    return rows


def take_rows(images: Tensor, rows: np.ndarray) -> Tensor:
    """Copies these rows (r,) of images (B, …)."""
    if images.is_cuda:
        return images[torch.from_numpy(rows).to(images.device)]
    return torch.from_numpy(images.numpy()[rows])  # a row is copied whole: torch copies it byte by byte


def put_rows(images: Tensor, rows: np.ndarray, values: Tensor) -> None:
    """Writes values (r, …), on the same device, into these rows (r,) of images (B, …)."""
    if images.is_cuda:
        images[torch.from_numpy(rows).to(images.device)] = values
    else:
        images.numpy()[rows] = values.numpy()
