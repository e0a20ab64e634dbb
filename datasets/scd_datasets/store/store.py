"""The window store: recorded episodes in one zarr v3 group, cut into windows that never cross an episode.

F frames (all episodes one after the other), E episodes, B windows, T steps, V cameras, H W pixels,
S state size, A action size. Row i holds observation i, the action taken at it, and the reward and success
of that action. What followed the last action of an episode was not recorded.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import zarr

from scd_datasets.store.arrays import SHARD_FRAMES, columns
from scd_world.robot_data.dropped_frames import find_dropped_frames
from scd_world.robot_data.schema import DataSchema
from scd_world.robot_data.stride import Stride
from scd_world.utils.atomic_folder import DamagedFolder

FORMAT = 1
REPORT = "report"  # the folder in a store that holds what the check of its recording found
REBUILD = "build the store again with scd-data"
READ = {"array.read_missing_chunks": False}  # zarr's default fills a missing shard with zeros


def free_memory(control_group: Path = Path("/sys/fs/cgroup")) -> float:
    """Gives the bytes that this process may take: what the machine has left, or what its container may still
    use, shared among the processes that torchrun started here."""
    free = psutil.virtual_memory().available
    try:
        limit = (control_group / "memory.max").read_text().strip()
        used = int((control_group / "memory.current").read_text())
        stat = dict(line.split() for line in (control_group / "memory.stat").read_text().splitlines())
        if limit != "max":  # cached files go when memory is asked for
            free = min(free, int(limit) - used + int(stat["inactive_file"]))
    except (OSError, KeyError, ValueError):
        pass  # no container, or one of another make
    return free / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


class WindowStore:
    """Reads windows of consecutive steps by (episode, frame), from RAM or streamed from disk.

    ## Attributes
    `schema` (DataSchema), `fingerprint` (a hash of all that is stored), `source` (of what it was built from),
    `imagined` (by whom, in plain words; None where it was recorded), `stride` (what a step is, where the
    recording had more of them; else None).
    By episode: `lengths` (E,) in steps, `starts` (E,) first rows, `episode_index` (E,) in the dataset they
    came from, `task` (E,) index into the schema's tasks. By frame: `state` (F, S), `action` (F, A), `reward`
    (F,), `success` (F,), `change` (F,) in gray levels; raw units; `dropped` (F,), whether the recorder
    dropped a frame between that one and the next.

    Open one with `WindowStore.open`. Bytes that do not have their checksum raise DamagedFolder.
    """

    def __init__(self, path: Path, group: zarr.Group, in_memory: bool | None) -> None:
        self.path = path
        self.schema = DataSchema.from_dict(cast("dict[str, Any]", group.attrs["schema"]))
        self.fingerprint, self.source = str(group.attrs["fingerprint"]), str(group.attrs.get("source", ""))
        self.imagined = cast("str | None", group.attrs.get("imagined"))
        stride = cast("dict[str, Any] | None", group.attrs.get("stride"))
        self.stride = None if stride is None else Stride(**stride)
        spec = columns(self.schema)
        arrays = {name: _array(path, group, name, dtype) for name, (dtype, _) in spec.items()}
        ends, self.episode_index = (
            _read_all(path, _array(path, group, f"meta/{name}", "int64"))
            for name in ("episode_ends", "episode_index")
        )
        _check_ends(path, ends, self.episode_index)
        self.task = np.zeros(len(ends), np.int64)
        if len(self.schema.tasks) > 1:
            self.task = _read_all(path, _array(path, group, "meta/task", "int64"))
        self.state, self.action, self.reward, self.success, self.change = (
            _read_all(path, arrays[name]) for name in ("state", "action", "reward", "success", "change")
        )
        for name, (_, shape) in spec.items():
            if arrays[name].shape != (ends[-1], *shape):
                raise ValueError(
                    f"{path}: {name} has shape {arrays[name].shape}, expected {(ends[-1], *shape)} by the "
                    "schema and the episode ends; build the store again with scd-data"
                )
        self._check_values()
        self.lengths = np.diff(ends, prepend=0)
        self.starts = ends - self.lengths
        self._pixels: zarr.Array | np.ndarray = arrays["pixels"]
        if in_memory is None:
            in_memory = arrays["pixels"].nbytes <= free_memory() / 2
        if in_memory:
            self._pixels = _read_all(path, arrays["pixels"])

    @classmethod
    def open(cls, path: str | Path, in_memory: bool | None = None) -> WindowStore:
        """Opens the store in folder `path`.

        in_memory: True reads all pixels into RAM, False streams them, None decides by the free RAM.

        Raises FileNotFoundError where there is none, and ValueError for one of another format.
        """
        path = Path(path)
        if not (path / "zarr.json").is_file():
            raise FileNotFoundError(
                f"no window store at {path}; build one with: scd-data data.root=<dataset> out=<store.zarr>"
            )
        with zarr.config.set(READ):
            group = zarr.open_group(path, mode="r", zarr_format=3)
            if group.attrs.get("format") != FORMAT:
                raise ValueError(
                    f"{path} has store format {group.attrs.get('format')}, this code reads {FORMAT}; "
                    "build it again with scd-data"
                )
            return cls(path, group, in_memory)

    @cached_property
    def dropped(self) -> np.ndarray:
        """Tells by the robot's own motion after which rows a frame was dropped, bool (F,)."""
        own = self.state[:, : len(self.schema.agent_pos)]
        return find_dropped_frames(own, self.action, self.starts, self.lengths)

    @property
    def in_memory(self) -> bool:
        return isinstance(self._pixels, np.ndarray)

    def verify(self) -> None:
        """Reads all pixels, a shard at a time; DamagedFolder where their checksums are not theirs."""
        for first in range(0, len(self.action), SHARD_FRAMES):
            with _named_damage(self.path, f"some of the frames from {first} on of pixels"):
                np.asarray(self._pixels[first : first + SHARD_FRAMES])

    def windows(self, episodes: np.ndarray, frames: np.ndarray, num_steps: int) -> dict[str, np.ndarray]:
        """Reads B windows of T = `num_steps` steps from `frames` (B,) of `episodes` (B,) on, both int.

        Gives, in raw units: `pixels` uint8 (B, T+1, V, H, W, 3) · `state` float32 (B, T+1, S) · `prev`
        float32 (B, S + A), state and action one frame before the window, at an episode's first frame its own
        state and NaN · `action` float32 (B, T, A) · `reward` float32, `success` bool, `valid` bool (B, T) ·
        `dropped` bool (B, T) · `task` int (B,). A window that ends with its episode repeats the last frame;
        that step is not `valid`.

        Raises ValueError where a window would leave its episode, or there is no such episode.
        """
        episodes, frames = np.asarray(episodes), np.asarray(frames)
        self._check(episodes, frames, num_steps)
        starts, lengths = self.starts[episodes], self.lengths[episodes]
        steps = frames[:, None] + np.arange(num_steps + 1)  # (B, T+1)
        rows = starts[:, None] + np.minimum(steps, lengths[:, None] - 1)
        taken = rows[:, :-1]
        return {
            "pixels": self.pixels_of_rows(rows),
            "state": self.state[rows],
            "prev": previous_state_action(self.state, self.action, rows[:, 0], starts),
            "action": self.action[taken],
            "reward": self.reward[taken],
            "success": self.success[taken],
            "valid": steps[:, 1:] < lengths[:, None],
            "dropped": self.dropped[taken],
            "task": self.task[episodes],
        }

    def frames(self, episodes: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Reads single frames, uint8 (B, V, H, W, 3), of `episodes` (B,) at `frames` (B,), both int.

        Raises ValueError where an episode has no such frame, or there is no such episode.
        """
        self._check(np.asarray(episodes), np.asarray(frames), 1)
        return self.pixels_of_rows(self.starts[episodes] + frames)

    def split(self, holdout: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Splits the episodes: training, held out; both sorted.

        holdout: share of the episodes, in [0, 1), that is held out; at least one, unless it is 0.
        seed: an episode's place depends on it and on the episode's index in its dataset alone.

        Raises ValueError where no training episode would be left.
        """
        count = len(self.lengths)
        if not 0 <= holdout < 1:
            raise ValueError(
                f"holdout is the share of episodes kept for evaluation, in [0, 1); got {holdout}"
            )
        num_out = max(1, round(holdout * count)) if holdout else 0
        if num_out >= count:
            raise ValueError(
                f"{self.path} has {count} episode(s), too few to hold out {holdout:.0%}; "
                "record more, or set holdout=0"
            )
        ranks = [np.random.default_rng([seed, index]).random() for index in self.episode_index]
        order = np.argsort(ranks, kind="stable")
        return np.sort(order[num_out:]), np.sort(order[:num_out])

    def _check_values(self) -> None:
        """Raises DamagedFolder for numbers that no check would have let in: somebody wrote into the store."""
        for name in ("state", "action", "reward"):
            values = getattr(self, name)
            if not np.isfinite(values).all():
                row = int(np.argwhere(~np.isfinite(values))[0][0])
                raise DamagedFolder(f"{self.path}: {name} is not finite in row {row}; {REBUILD}")
        if self.task.min(initial=0) < 0 or self.task.max(initial=0) >= max(1, len(self.schema.tasks)):
            raise DamagedFolder(f"{self.path}: meta/task names tasks that the schema has not; {REBUILD}")

    def _check(self, episodes: np.ndarray, frames: np.ndarray, num_steps: int) -> None:
        if episodes.shape != frames.shape or episodes.ndim != 1:
            raise ValueError(
                f"episodes and frames must be two (B,) arrays, got {episodes.shape}, {frames.shape}"
            )
        exists = (episodes >= 0) & (episodes < len(self.lengths))
        if not exists.all():
            raise ValueError(f"no episode {episodes[~exists][0]}: the store has 0…{len(self.lengths) - 1}")
        last_start = self.lengths[episodes] - num_steps
        bad = (frames < 0) | (frames > last_start)
        if num_steps < 1 or bad.any():
            i = int(np.argmax(bad))
            raise ValueError(
                f"a window of {num_steps} steps from frame {frames[i]} of episode {episodes[i]} leaves the "
                f"episode's {self.lengths[episodes[i]]} steps; the last start is {last_start[i]}"
            )

    def pixels_of_rows(self, rows: np.ndarray) -> np.ndarray:
        """Reads the frames of rows (…,), uint8 (…, V, H, W, 3)."""
        if isinstance(self._pixels, np.ndarray):
            return self._pixels[rows]
        unique, inverse = np.unique(rows, return_inverse=True)
        # One request for the whole batch: zarr's cost is per request, twice as high window by window.
        with _named_damage(self.path, f"some of the frames {unique[0]}…{unique[-1]} of pixels"):
            return np.asarray(self._pixels.oindex[unique])[inverse.reshape(rows.shape)]


def rows_of(starts: np.ndarray, lengths: np.ndarray, episodes: np.ndarray) -> np.ndarray:
    """Gives the rows (R,) of these episodes, one episode after another."""
    return np.concatenate([np.arange(0), *(starts[e] + np.arange(lengths[e]) for e in episodes)])


def previous_state_action(
    state: np.ndarray, action: np.ndarray, rows: np.ndarray, starts: np.ndarray
) -> np.ndarray:
    """Gives (R, S + A): state and action one frame before each of the rows (R,), whose episodes begin at
    `starts` (R,); at an episode's first frame its own state, and NaN for the action."""
    earlier = np.maximum(rows - 1, starts)
    previous_action = np.where((rows == starts)[:, None], np.float32(np.nan), action[earlier])
    return np.concatenate([state[earlier], previous_action], axis=1)


def _check_ends(path: Path, ends: np.ndarray, index: np.ndarray) -> None:
    """Raises DamagedFolder unless the episodes follow one another, each once."""
    if not len(ends) or (np.diff(ends, prepend=0) <= 0).any():
        raise DamagedFolder(
            f"{path}: meta/episode_ends must rise from above 0, got {ends.tolist()[:8]}…; {REBUILD}"
        )
    if len(index) != len(ends) or len(np.unique(index)) < len(index):
        raise DamagedFolder(
            f"{path}: meta/episode_index must name each of {len(ends)} episodes once; {REBUILD}"
        )


def _array(path: Path, group: zarr.Group, name: str, dtype: str) -> zarr.Array:
    if name not in group:
        raise ValueError(f"{path} has no array {name!r}; build the store again with scd-data")
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise ValueError(f"{path}: {name} is a group, expected an array")
    if array.dtype != np.dtype(dtype):  # plain arrays only, whatever a foreign store may hold
        raise ValueError(f"{path}: {name} holds {array.dtype}, expected {dtype}")
    return array


def _read_all(path: Path, array: zarr.Array) -> np.ndarray:
    with _named_damage(path, array.basename):
        return np.asarray(array[:])


@contextmanager
def _named_damage(path: Path, what: str):
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:  # checksums raise the first two, the disk the third
        raise DamagedFolder(
            f"{path}: {what} damaged or missing ({error}); build the store again with scd-data"
        ) from error
