"""How a window store comes to be: episode by episode, complete or not there, and a killed one goes on.

A killed writer leaves its scratch folder beside the store: whole shards of pixels, and a journal of which
episodes they hold. The next writer of the same source takes those pixels from there instead of from the
recording, whose decoding takes the time. Every shard is checksummed: what is taken is what was written.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import zarr
from filelock import FileLock, Timeout

from scd_datasets.store import arrays
from scd_datasets.store.arrays import EpisodeArrays, ShardedArray, columns, episode_rows
from scd_datasets.store.store import FORMAT, READ, REPORT, WindowStore
from scd_world.robot_data.schema import DataSchema
from scd_world.robot_data.stride import Stride
from scd_world.utils.atomic_folder import TEMP, beside, refuse_strangers, replace_folder

log = logging.getLogger(__name__)
JOURNAL = "journal.jsonl"  # in the scratch folder: what is being written, then a line per episode


def write_store(
    path: str | Path, schema: DataSchema, episodes: Iterable[EpisodeArrays], source: str = ""
) -> WindowStore:
    """Writes `episodes` to a new store at `path`, holding one episode and one shard in memory; opens it.

    source: a digest of what they come from, kept with them, by which a reader knows whether that has changed.

    The store appears under its name only when it is complete, and only then replaces an earlier one: an error
    or a full disk on the way costs nothing that was there. Raises ValueError where there is no episode, or an
    array is not of the schema's shape.
    """
    with StoreWriter(path, schema, source) as writer:
        for episode in episodes:
            writer.append(episode)
        writer.finish(source)
    return WindowStore.open(path, in_memory=False)


@contextmanager
def store_lock(path: Path) -> Iterator[None]:
    """Holds the right to write the store at `path`; another process waits for it, and says so. A process may
    ask again for what it holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"), is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process, which is writing %s", path)
        lock.acquire()
    try:
        yield
    finally:
        # Its file stays. Who waits may have it open: removed, whoever comes next would lock a new one, and
        # both would write.
        lock.release()


class StoreWriter:
    """Writes a store at `path`: `append` episodes, `finish`, and leaving the context publishes it.

    source: a digest of what is read: an interrupted writer of the same is gone on with; "" with none.
    imagined: by whom the episodes were, in plain words, where they were not recorded.
    stride: what a step is, where the recording had more of them.

    ## Attributes
    `kept`: the indices of the episodes whose pixels an interrupted writer of the same source left; `pixels`
    gives them. `fingerprint`: a hash of all that is stored, once finished. `scratch`: the folder that becomes
    the store.
    """

    def __init__(
        self,
        path: str | Path,
        schema: DataSchema,
        source: str = "",
        imagined: str | None = None,
        stride: Stride | None = None,
    ) -> None:
        self.path, self.schema, self.source = Path(path), schema, source
        self.imagined, self.stride = imagined, stride
        refuse_foreign_store(self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.scratch = beside(self.path, TEMP)
        self._lock = store_lock(self.path)
        self._keep = False
        self.fingerprint = ""

    def __enter__(self) -> StoreWriter:
        self._lock.__enter__()
        head = {"format": FORMAT, "schema": self.schema.to_dict(), "source": self.source}
        hashed = replace(self.schema, camera_keys=())  # by which keys it came changes nothing that is stored
        self._digest = hashlib.sha256(json.dumps(hashed.to_dict(), sort_keys=True).encode())
        self.kept, rows = kept_episodes(self.scratch, head) if self.source else ({}, 0)
        if not self.kept:
            shutil.rmtree(self.scratch, ignore_errors=True)
            rows = 0
        try:
            self._group = zarr.open_group(self.scratch, mode="a", zarr_format=3)
            self._arrays = {
                name: ShardedArray(self._group, name, *spec, kept=rows if name == "pixels" else 0)
                for name, spec in columns(self.schema).items()
            }
            lines = [head, *(_entry(episode, length, rows) for episode, (_, length) in self.kept.items())]
            (self.scratch / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in lines))
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        self._lengths: list[int] = []
        self._indices: list[int] = []
        self._tasks: list[int] = []
        return self

    def pixels(self, episode: int) -> np.ndarray:
        """Reads the kept pixels uint8 (L, V, H, W, 3) of an episode, by its index in the dataset."""
        first, length = self.kept[episode]
        with zarr.config.set(READ):
            return np.asarray(self._arrays["pixels"].array[first : first + length])

    def append(self, episode: EpisodeArrays) -> None:
        """Adds the next episode; after an interruption the same ones come first, in the same order."""
        assert self.kept.get(episode.index, (sum(self._lengths),))[0] == sum(self._lengths)
        rows = episode_rows(self.schema, episode)
        for name, values in rows.items():
            self._arrays[name].append(values)
            self._digest.update(values.tobytes())
        self._lengths.append(episode.length)
        self._indices.append(episode.index)
        self._tasks.append(episode.task)
        if episode.index not in self.kept:
            line = _entry(episode.index, episode.length, self._arrays["pixels"].written)
            with (self.scratch / JOURNAL).open("a") as journal:
                journal.write(json.dumps(line) + "\n")

    def keep(self) -> None:
        """Has what is written left there, whatever happens now: a later writer of the same source goes on."""
        self._keep = True

    def finish(self, source: str) -> None:
        """Writes what is still in memory, and what is known by now; ValueError where there is no episode.

        source: a digest of what the store was built from, by which a reader knows whether that has changed.
        """
        if not self._lengths:
            raise ValueError(f"no episode to write to {self.path}; a store needs at least one")
        per_episode = {"episode_ends": np.cumsum(self._lengths), "episode_index": np.array(self._indices)}
        if len(self.schema.tasks) > 1:
            per_episode["task"] = np.array(self._tasks)
        for name, column in per_episode.items():
            column = column.astype(np.int64)
            self._arrays[name] = ShardedArray(self._group, f"meta/{name}", "int64", ())
            self._arrays[name].append(column)
            self._digest.update(column.tobytes())
        for array in self._arrays.values():
            array.flush()
        self.fingerprint = self._digest.hexdigest()
        attributes: dict[str, Any] = {"format": FORMAT, "schema": self.schema.to_dict()}
        origin: dict[str, Any] = {
            "fingerprint": self.fingerprint,
            "source": source,
            "imagined": self.imagined,
        }
        if self.stride is not None:
            origin["stride"] = vars(self.stride)
        self._group.attrs.update(attributes | origin)
        (self.scratch / JOURNAL).unlink()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self.fingerprint:
                replace_folder(self.scratch, self.path)
            elif not self.source or not (self._keep or (kind and not issubclass(kind, Exception))):
                shutil.rmtree(self.scratch, ignore_errors=True)  # an interruption leaves it, to go on
        finally:
            self._lock.__exit__(None, None, None)


def _entry(episode: int, length: int, rows: int) -> dict[str, int]:
    """Gives an episode's line in the journal: with how many rows of pixels that are on the disk."""
    return {"episode": episode, "length": length, "rows": rows}


def kept_episodes(scratch: Path, head: dict[str, Any]) -> tuple[dict[int, tuple[int, int]], int]:
    """Finds what an interrupted writer of the same thing (`head`) left: episode → (first row, length), of
    those whose pixels are all on the disk, and how many rows of pixels are."""
    try:
        first, *lines = (scratch / JOURNAL).read_text().splitlines()
        if json.loads(first) != json.loads(json.dumps(head)):
            return {}, 0
        group = zarr.open_group(scratch, mode="r", zarr_format=3)
        pixels = group["pixels"]
    except (OSError, ValueError, KeyError):
        return {}, 0
    entries = []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except ValueError:
            break  # the line that was being written
    if not entries or not isinstance(pixels, zarr.Array):
        return {}, 0
    rows, kept, start = min(entries[-1]["rows"], pixels.shape[0]), {}, 0
    rows = sound_rows(pixels, rows - rows % arrays.SHARD_FRAMES)  # the last shard may be a part of one
    for entry in entries:
        if start + entry["length"] > rows:
            break
        kept[entry["episode"]] = start, entry["length"]
        start += entry["length"]
    return kept, rows


def sound_rows(pixels: zarr.Array, rows: int) -> int:
    """Counts the rows, of the first `rows`, that lie in whole shards before the first damaged one."""
    for first in range(0, rows, arrays.SHARD_FRAMES):
        try:
            with zarr.config.set(READ):
                np.asarray(pixels[first : first + arrays.SHARD_FRAMES])
        except (RuntimeError, ValueError, OSError):
            return first
    return rows


def refuse_foreign_store(path: Path) -> None:
    """Raises ValueError where replacing `path` would lose anything but an earlier window store."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    try:
        attributes = json.loads((path / "zarr.json").read_bytes())["attributes"]
        ours = {"format", "schema", "fingerprint"} <= set(attributes)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        ours = False
    if not ours:
        raise ValueError(
            f"{path} exists and is no window store: to replace it would lose what lies there; name another"
        )
    known = {*columns(DataSchema.from_dict(attributes["schema"])), "meta", "zarr.json", REPORT}
    refuse_strangers(path, {file.name for file in path.iterdir()} - known)
