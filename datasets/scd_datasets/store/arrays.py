"""What a window store holds per frame, and how such an array grows on disk, checksummed.

L steps of an episode, F frames of all episodes, V cameras, H W pixels, S state size, A action size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from scd_world.robot_data.schema import DataSchema

CHUNK_FRAMES, SHARD_FRAMES = 8, 1024  # few reads per window, few files per dataset
SMALL_CHUNK = 8192  # rows of the arrays that are always read whole
# Without a checksum a flipped bit is a silently wrong frame. An all-zero chunk is written like any
# other, so that a chunk that is not there is always a loss.
COMPRESSORS = (ZstdCodec(level=1), Crc32cCodec())


@dataclass(frozen=True)
class EpisodeArrays:
    """Holds one recorded episode of L steps, in raw units."""

    pixels: np.ndarray  # uint8 (L, V, H, W, 3)
    state: np.ndarray  # float32 (L, S)
    action: np.ndarray  # float32 (L, A)
    reward: np.ndarray  # float32 (L,), zeros where not recorded
    success: np.ndarray  # bool (L,), False where not recorded
    index: int  # the episode's index in the dataset it came from
    task: int = 0  # which of the schema's tasks

    @property
    def length(self) -> int:
        return len(self.action)


def columns(schema: DataSchema) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Gives name → (dtype, shape of one row) of every per-frame array in the store."""
    return {
        "pixels": ("uint8", (len(schema.cameras), schema.height, schema.width, 3)),
        "state": ("float32", (len(schema.state),)),
        "action": ("float32", (len(schema.action),)),
        "reward": ("float32", ()),
        "success": ("bool", ()),
        "change": ("float32", ()),  # mean |pixel difference| to the next frame, gray levels; last: 0
    }


def episode_rows(schema: DataSchema, episode: EpisodeArrays) -> dict[str, np.ndarray]:
    """Gives an episode's arrays by name; ValueError where a shape is not the schema's."""
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
    """Computes, from uint8 (L, V, H, W, 3), the mean |difference| to the next frame in gray levels: float32
    (L,), 0 for the last frame."""
    change = np.zeros(len(pixels), np.float32)
    for i in range(len(pixels) - 1):
        darker, lighter = np.minimum(pixels[i], pixels[i + 1]), np.maximum(pixels[i], pixels[i + 1])
        change[i] = (lighter - darker).mean()
    return change


class ShardedArray:
    """Grows a zarr array in whole shards: each is compressed once, not once per episode.

    kept: rows that an interrupted writer left in whole shards; as many that are appended first are those, and
    not written again.
    """

    def __init__(
        self, group: zarr.Group, name: str, dtype: str, shape: tuple[int, ...], kept: int = 0
    ) -> None:
        chunk, shard = (CHUNK_FRAMES, SHARD_FRAMES) if name == "pixels" else (SMALL_CHUNK, SMALL_CHUNK)
        self.shard = np.empty((shard, *shape), dtype)  # filled, then written
        self.filled, self.kept = 0, kept - kept % shard
        if self.kept:
            found = group[name]
            assert isinstance(found, zarr.Array)
            self.array: zarr.Array = found
            self.array.resize((self.kept, *shape))
            return
        empty_row = 0 in shape  # zarr wants chunks of at least one element
        self.array = group.create_array(
            name,
            shape=(0, *shape),
            dtype=dtype,
            chunks=(chunk, *(max(n, 1) for n in shape)),
            shards=None if empty_row or shard == chunk else (shard, *shape),
            compressors=COMPRESSORS,
            config={"write_empty_chunks": True},
            overwrite=True,
        )

    def append(self, values: np.ndarray) -> None:
        """Adds rows (N, *shape); a shard that is full is written."""
        skipped = min(self.kept, len(values))
        self.kept, values = self.kept - skipped, values[skipped:]
        while len(values):
            part = values[: len(self.shard) - self.filled]
            self.shard[self.filled : self.filled + len(part)] = part
            self.filled += len(part)
            if self.filled == len(self.shard):
                self.flush()
            values = values[len(part) :]

    @property
    def written(self) -> int:
        """Counts the rows on the disk."""
        return self.array.shape[0]

    def flush(self) -> None:
        """Writes what there is; where that does not fill a shard, nothing can be appended after it."""
        start = self.array.shape[0]
        self.array.resize((start + self.filled, *self.array.shape[1:]))
        if self.filled and self.array.size:
            self.array[start:] = self.shard[: self.filled]
        self.filled = 0
