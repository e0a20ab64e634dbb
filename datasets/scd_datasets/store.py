"""The window store: recorded episodes in one zarr v3 group, cut into windows that never cross an episode.

F frames (all episodes one after the other), E episodes, B windows, T steps, V cameras, H W pixels,
S state size, A action size. Row i holds observation i, the action taken at it, and the reward and success
of that action. What followed the last action of an episode was not recorded.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from scd_world.schema import DataSchema

FORMAT = 1
CHUNK_FRAMES, SHARD_FRAMES = 8, 1024  # few reads per window, few files per dataset
SMALL_CHUNK = 8192  # rows of the arrays that are always read whole
# Without a checksum a flipped bit is a silently wrong frame. An all-zero chunk is written like any
# other, so that a chunk that is not there is always a loss.
CODEC = {"compressors": (ZstdCodec(level=1), Crc32cCodec()), "config": {"write_empty_chunks": True}}
READ = {"array.read_missing_chunks": False}  # zarr's default fills a missing shard with zeros


@dataclass(frozen=True)
class EpisodeArrays:
    """One recorded episode of L steps, in raw units."""

    pixels: np.ndarray  # uint8 (L, V, H, W, 3)
    state: np.ndarray  # float32 (L, S)
    action: np.ndarray  # float32 (L, A)
    reward: np.ndarray  # float32 (L,), zeros where not recorded
    success: np.ndarray  # bool (L,), False where not recorded
    index: int  # the episode's index in the dataset it came from

    @property
    def length(self) -> int:
        return len(self.action)


def columns(schema: DataSchema) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name → (dtype, shape of one row) of every per-frame array in the store."""
    return {
        "pixels": ("uint8", (len(schema.cameras), schema.height, schema.width, 3)),
        "state": ("float32", (len(schema.state),)),
        "action": ("float32", (len(schema.action),)),
        "reward": ("float32", ()),
        "success": ("bool", ()),
        "change": ("float32", ()),  # mean |pixel difference| to the next frame, grey levels; last: 0
    }


# ------------------------------------------------------------------------------------------- writing


def write_store(
    path: str | Path, schema: DataSchema, episodes: Iterable[EpisodeArrays], source: str = ""
) -> WindowStore:
    """Write `episodes` to a new store at `path`, holding one episode and one shard in memory.

    `source` is kept beside them, so that a reader can tell whether what they came from has changed.

    The store appears under its name only when it is complete; an earlier one is replaced by then, so
    that an error or a full disk on the way costs nothing that was there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        _write_group(scratch, schema, episodes, source)
        _replace_folder(scratch, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return WindowStore.open(path)


def _write_group(path: Path, schema: DataSchema, episodes: Iterable[EpisodeArrays], source: str) -> None:
    group = zarr.create_group(path, zarr_format=3)
    digest = hashlib.sha256(json.dumps(schema.to_dict(), sort_keys=True).encode())
    columns_out = {name: _Column(group, name, *spec) for name, spec in columns(schema).items()}
    lengths, indices = [], []
    for episode in episodes:
        rows = _rows(schema, episode)
        for name, values in rows.items():
            columns_out[name].append(values)
            digest.update(values.tobytes())
        lengths.append(episode.length)
        indices.append(episode.index)
    if not lengths:
        raise ValueError(f"no episode to write to {path}; a store needs at least one")
    for column in columns_out.values():
        column.flush()
    for name, values in {"episode_ends": np.cumsum(lengths), "episode_index": indices}.items():
        _Column(group, f"meta/{name}", "int64", ()).append(np.asarray(values, np.int64), last=True)
        digest.update(np.asarray(values, np.int64).tobytes())
    attributes = {"schema": schema.to_dict(), "fingerprint": digest.hexdigest(), "source": source}
    group.attrs.update(format=FORMAT, **attributes)


def _rows(schema: DataSchema, episode: EpisodeArrays) -> dict[str, np.ndarray]:
    """An episode's arrays by column, every shape checked against the schema."""
    rows = {}
    for name, (dtype, shape) in columns(schema).items():
        if name == "change":
            values = pixel_change(episode.pixels)
        else:
            values = np.ascontiguousarray(getattr(episode, name), dtype)
        if values.shape != (episode.length, *shape):
            raise ValueError(
                f"episode {episode.index}: {name} has shape {values.shape}, expected "
                f"{(episode.length, *shape)} ({episode.length} actions, and the schema's sizes)"
            )
        rows[name] = values
    return rows


def pixel_change(pixels: np.ndarray) -> np.ndarray:
    """uint8 (L, V, H, W, 3) → float32 (L,): mean |difference| to the next frame, 0 for the last one."""
    change = np.zeros(len(pixels), np.float32)
    for i in range(len(pixels) - 1):
        darker, lighter = np.minimum(pixels[i], pixels[i + 1]), np.maximum(pixels[i], pixels[i + 1])
        change[i] = (lighter - darker).mean()
    return change


class _Column:
    """One growing zarr array, written in whole shards: each is compressed once, not once per episode."""

    def __init__(self, group: zarr.Group, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        chunk, shard = (CHUNK_FRAMES, SHARD_FRAMES) if name == "pixels" else (SMALL_CHUNK, SMALL_CHUNK)
        empty_row = 0 in shape  # zarr wants chunks of at least one element
        self.array = group.create_array(
            name,
            shape=(0, *shape),
            dtype=dtype,
            chunks=(chunk, *(max(n, 1) for n in shape)),
            shards=None if empty_row or shard == chunk else (shard, *shape),
            **CODEC,
        )
        self.shard, self.waiting = shard, []

    def append(self, values: np.ndarray, last: bool = False) -> None:
        self.waiting.append(values)
        if last or sum(map(len, self.waiting)) >= self.shard:
            self.flush(whole_shards=not last)

    def flush(self, whole_shards: bool = False) -> None:
        if not self.waiting:
            return
        values = np.concatenate(self.waiting)
        count = len(values) // self.shard * self.shard if whole_shards else len(values)
        start = self.array.shape[0]
        self.array.resize((start + count, *values.shape[1:]))
        if values[:count].size:
            self.array[start:] = values[:count]
        self.waiting = [values[count:]] if count < len(values) else []


def _replace_folder(new: Path, path: Path) -> None:
    """Put folder `new` in the place of `path`; what was there is removed only afterwards."""
    old = path.with_name(f"{path.name}.{os.getpid()}.old")
    if path.exists():
        os.replace(path, old)
    os.replace(new, path)
    shutil.rmtree(old, ignore_errors=True)


# ------------------------------------------------------------------------------------------- reading


class WindowStore:
    """Read windows of consecutive steps by (episode, frame), from RAM or streamed from disk.

    `lengths` (E,) are the steps of each episode, `episode_index` (E,) where they came from;
    `state`, `action`, `reward`, `success`, `change` are whole (F, …) arrays, `starts` (E,) their first rows.
    """

    def __init__(self, path: Path, group: zarr.Group, in_memory: bool | None) -> None:
        self.path = path
        self.schema = DataSchema.from_dict(group.attrs["schema"])
        self.fingerprint, self.source = str(group.attrs["fingerprint"]), str(group.attrs.get("source", ""))
        spec = columns(self.schema)
        arrays = {name: _array(path, group, name, dtype) for name, (dtype, _) in spec.items()}
        ends, self.episode_index = (
            _read_all(path, _array(path, group, f"meta/{name}", "int64"))
            for name in ("episode_ends", "episode_index")
        )
        self.state, self.action, self.reward, self.success, self.change = (
            _read_all(path, arrays[name]) for name in ("state", "action", "reward", "success", "change")
        )
        for name, (_, shape) in spec.items():
            if arrays[name].shape != (ends[-1], *shape):
                raise ValueError(
                    f"{path}: {name} has shape {arrays[name].shape}, the schema and the episode ends say "
                    f"{(ends[-1], *shape)}; build the store again with scd-data"
                )
        self.lengths = np.diff(ends, prepend=0)
        self.starts = ends - self.lengths
        self._pixels: zarr.Array | np.ndarray = arrays["pixels"]
        if in_memory is None:
            in_memory = arrays["pixels"].nbytes <= psutil.virtual_memory().available / 4
        if in_memory:
            self._pixels = _read_all(path, arrays["pixels"])

    @classmethod
    def open(cls, path: str | Path, in_memory: bool | None = None) -> WindowStore:
        """in_memory: True reads all pixels into RAM, False streams, None decides by the free RAM."""
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

    @property
    def in_memory(self) -> bool:
        return isinstance(self._pixels, np.ndarray)

    def windows(self, episodes: np.ndarray, frames: np.ndarray, num_steps: int) -> dict[str, np.ndarray]:
        """B windows of T = `num_steps` steps from `frames` (B,) of `episodes` (B,), in raw units.

        Gives `pixels` uint8 (B, T+1, V, H, W, 3), `state` (B, T+1, S), `action` (B, T, A), and `reward`,
        `success`, `valid` (B, T). A window that ends with its episode repeats the last frame; that step is
        not valid. A window that would cross the episode's end raises ValueError.
        """
        episodes, frames = np.asarray(episodes), np.asarray(frames)
        self._check(episodes, frames, num_steps)
        starts, lengths = self.starts[episodes], self.lengths[episodes]
        steps = frames[:, None] + np.arange(num_steps + 1)  # (B, T+1)
        rows = starts[:, None] + np.minimum(steps, lengths[:, None] - 1)
        acts = rows[:, :-1]
        return {
            "pixels": self._gather_pixels(rows),
            "state": self.state[rows],
            "action": self.action[acts],
            "reward": self.reward[acts],
            "success": self.success[acts],
            "valid": steps[:, 1:] < lengths[:, None],
        }

    def split(self, holdout: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """(training episodes, held-out episodes), sorted. A lot depends on seed and index alone."""
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
        lots = [np.random.default_rng([seed, index]).random() for index in self.episode_index]
        order = np.argsort(lots, kind="stable")
        return np.sort(order[num_out:]), np.sort(order[:num_out])

    def _check(self, episodes: np.ndarray, frames: np.ndarray, num_steps: int) -> None:
        if episodes.shape != frames.shape or episodes.ndim != 1:
            raise ValueError(
                f"episodes and frames must be two (B,) arrays, got {episodes.shape}, {frames.shape}"
            )
        known = (episodes >= 0) & (episodes < len(self.lengths))
        if not known.all():
            raise ValueError(f"no episode {episodes[~known][0]}: the store has 0…{len(self.lengths) - 1}")
        room = self.lengths[episodes] - num_steps
        bad = (frames < 0) | (frames > room)
        if num_steps < 1 or bad.any():
            i = int(np.argmax(bad))
            raise ValueError(
                f"a window of {num_steps} steps from frame {frames[i]} of episode {episodes[i]} leaves the "
                f"episode's {self.lengths[episodes[i]]} steps; the last start is {room[i]}"
            )

    def _gather_pixels(self, rows: np.ndarray) -> np.ndarray:
        if self.in_memory:
            return self._pixels[rows]
        unique, places = np.unique(rows, return_inverse=True)
        # One request for the whole batch: zarr's cost is per request, twice as high window by window.
        with _named_damage(self.path, f"some of the frames {unique[0]}…{unique[-1]} of pixels"):
            return self._pixels.oindex[unique][places.reshape(rows.shape)]


def _array(path: Path, group: zarr.Group, name: str, dtype: str) -> zarr.Array:
    if name not in group:
        raise ValueError(f"{path} has no array {name!r}; build the store again with scd-data")
    array = group[name]
    if array.dtype != np.dtype(dtype):  # plain numbers only, whatever a foreign store may hold
        raise ValueError(f"{path}: {name} holds {array.dtype}, expected {dtype}")
    return array


def _read_all(path: Path, array: zarr.Array) -> np.ndarray:
    with _named_damage(path, array.basename):
        return array[:]


@contextmanager
def _named_damage(path: Path, what: str):
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:  # checksums raise the first two, the disk the third
        raise RuntimeError(
            f"{path}: {what} damaged or missing ({error}); build the store again with scd-data"
        ) from error
