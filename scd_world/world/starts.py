"""Recorded moments from which an imagined episode can start, each known by its (episode, frame) address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from scd_world.robot_data.schema import DataSchema

MOST_BYTES = 2**34  # of one array: a file of a kilobyte can claim to hold more than a machine
MAY_LACK = {"task", "found"}
NAMES = {"u": "bytes", "f": "real numbers", "i": "whole numbers"}


@dataclass(frozen=True)
class StartState:
    """A recorded frame and the k − 1 frames before it, in raw units; an episode starts at the last one."""

    pixels: np.ndarray  # uint8 (k, V, H, W, 3)
    state: np.ndarray  # float32 (k, S)
    action: np.ndarray  # float32 (k − 1, A)
    prev: np.ndarray  # float32 (S + A,) state and action before the first; none known: its own and NaN
    task: int = 0  # which of the schema's tasks
    # float32 (k, N): where the objects in its pictures are; None: to be found by whoever starts from it
    found: np.ndarray | None = None

    @property
    def last_prev(self) -> np.ndarray:
        """(S + A,): state and action one frame before the last."""
        if not len(self.action):
            return self.prev
        return np.concatenate([self.state[-2], self.action[-1]])


@dataclass(frozen=True)
class StartStates:
    """Pieces of recorded episodes. Every stored frame is a start; the ones before it are its context."""

    pixels: np.ndarray  # uint8 (F, V, H, W, 3)
    state: np.ndarray  # float32 (F, S)
    action: np.ndarray  # float32 (F, A), taken at that frame
    addresses: np.ndarray  # int64 (F, 2): episode of the dataset and frame in it, sorted
    # (F,) which of the schema's tasks; empty where there is one alone
    task: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    # float32 (F, N): where the objects in the pictures are; empty where nobody looked
    found: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    @cached_property
    def rows(self) -> dict[tuple[int, int], int]:
        return {(int(episode), int(frame)): row for row, (episode, frame) in enumerate(self.addresses)}

    @cached_property
    def frames_before(self) -> list[int]:
        """How many frames of its episode lie directly before each frame, one after the other."""
        goes_on = (np.diff(self.addresses, axis=0) == [0, 1]).all(1)
        row = np.arange(len(self.addresses))
        begin = np.maximum.accumulate(np.where(np.append(False, goes_on), 0, row))
        return (row - begin).tolist()

    @cached_property
    def first_frames(self) -> np.ndarray:
        """Addresses of the episodes' own first frames (M, 2): the dataset's distribution of starts."""
        return self.addresses[self.addresses[:, 1] == 0]

    def get(self, episode: int, frame: int, context: int = 1) -> StartState:
        """The start at this address with at most `context` frames, itself included."""
        row = self.rows.get((int(episode), int(frame)))
        if row is None:
            raise ValueError(f"no start at episode {episode}, frame {frame}: {self.describe(int(episode))}")
        first = row - min(self.frames_before[row], context - 1)
        frames = slice(first, row + 1)
        if self.frames_before[first]:
            known = self.state[first - 1], self.action[first - 1]
        else:
            known = self.state[first], np.full_like(self.action[first], np.nan)
        return StartState(
            pixels=self.pixels[frames],
            state=self.state[frames],
            action=self.action[first:row],
            prev=np.concatenate(known),
            task=int(self.task[row]) if len(self.task) else 0,
            found=self.found[frames] if len(self.found) else None,
        )

    def filter_by_task(self, task: int, pool: np.ndarray) -> np.ndarray:
        """Those of the addresses `pool` (M, 2) at which this task was being done; all, if there are none."""
        if not len(self.task):
            return pool
        same = np.array([self.task[self.rows[episode, frame]] == task for episode, frame in pool.tolist()])
        return pool[same] if same.any() else pool

    def describe(self, episode: int) -> str:
        """What there is, for an error message."""
        episodes = np.unique(self.addresses[:, 0])
        if episode not in episodes:
            shown = ", ".join(map(str, episodes[:20])) + (", …" if len(episodes) > 20 else "")
            return f"this world holds starts of the episodes {shown}"
        frames = self.addresses[self.addresses[:, 0] == episode, 1]
        return f"of episode {episode} this world holds the frames {frames.min()} to {frames.max()}"

    def save(self, folder: Path) -> None:
        import zarr
        from zarr.codecs import Crc32cCodec, ZstdCodec

        group = zarr.open_group(str(folder), mode="w", zarr_format=3)
        for name, value in self.arrays().items():
            group.create_array(
                name,
                shape=value.shape,
                dtype=value.dtype,
                chunks=(min(len(value), 256) or 1, *(max(n, 1) for n in value.shape[1:])),
                # Checked on reading: a flipped bit raises instead of showing a wrong frame.
                compressors=[ZstdCodec(level=19), Crc32cCodec()],
                # Zeros too: what is not there is always a loss.
                config={"write_empty_chunks": True},
            )[:] = value

    def arrays(self) -> Mapping[str, np.ndarray]:
        arrays = {part.name: getattr(self, part.name) for part in fields(self)}
        return {name: value for name, value in arrays.items() if name not in MAY_LACK or len(value)}

    @classmethod
    def load(cls, folder: Path) -> StartStates:
        import zarr

        names = [part.name for part in fields(cls)]
        try:
            with zarr.config.set({"array.read_missing_chunks": False}):
                group = zarr.open_group(str(folder), mode="r")
                found = sorted(group.array_keys())
                if not set(names) - MAY_LACK <= set(found) <= set(names):
                    raise ValueError(f"holds the arrays {found}; expected {names}")
                arrays: dict[str, Any] = {name: plain(group[name]) for name in found}
        # What a file that is no zarr array raises, as deep as it was read; a missing chunk among them.
        except (OSError, KeyError, TypeError, AttributeError, RecursionError, RuntimeError) as error:
            raise ValueError(f"cannot be read as zarr arrays: {error!r:.200}") from error
        return cls(**arrays)

    def check(self, schema: DataSchema, found: int = 0) -> None:
        """Raises ValueError unless there are starts, all of them finite, of data of this schema, with as many
        numbers found in each picture."""
        F = len(self.addresses)
        expected = {
            "pixels": ("u", (F, len(schema.cameras), schema.height, schema.width, 3)),
            "state": ("f", (F, len(schema.state))),
            "action": ("f", (F, len(schema.action))),
            "addresses": ("i", (F, 2)),
        } | ({"task": ("i", (F,))} if len(self.task) else {})
        if len(self.found):
            expected["found"] = ("f", (F, found))
        for name, (kind, shape) in expected.items():
            array = getattr(self, name)
            if array.dtype.kind != kind or array.shape != shape or not F:
                raise ValueError(
                    f"{name} is {array.dtype} of shape {array.shape}; by the schema and the addresses, of "
                    f"which there is one or more, expected {NAMES[kind]} of shape {shape}"
                )
        for name in ("state", "action", *(["found"] if len(self.found) else [])):
            if len(wrong := np.flatnonzero(~np.isfinite(getattr(self, name)).all(1))):
                episode, frame = self.addresses[wrong[0]]
                raise ValueError(f"{name} of episode {episode}, frame {frame} is not finite")
        if not set(self.task.tolist()) <= set(range(max(len(schema.tasks), 1))):
            raise ValueError(
                f"task holds {sorted(set(self.task.tolist()))[:20]}; expected numbers of {schema.tasks}"
            )


def plain(array: Any) -> np.ndarray:
    """A zarr array's numbers; anything but plain numbers is refused (objects can carry code), and more of
    them than any world has."""
    if array.nbytes > MOST_BYTES:
        raise ValueError(f"array {array.name} of shape {array.shape} would take {array.nbytes / 1e9:.3g} GB")
    if array.dtype.kind not in "uifb":
        raise ValueError(
            f"array {array.name} has dtype {array.dtype}; expected whole or real numbers or bool"
        )
    return array[...]
