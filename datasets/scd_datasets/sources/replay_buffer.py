"""Diffusion Policy's replay buffer: a zarr group with all episodes one after the other in `data`'s arrays.

`meta/episode_ends` says where each ends. Row i of every array belongs to one time step: the observation, and
the action taken at it (its recorder observes, acts, writes both down, and only then steps). Neither a frame
rate nor a task is stored.

N rows, L steps of an episode, n values in a row, V cameras, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from scd_datasets.sources.images import ImageGrid, region_of, resize_into
from scd_datasets.sources.lerobot_features import (
    ACTION,
    ENVIRONMENT_STATE,
    MULTIPLE,
    STATE,
    common_size,
    wanted_of,
)
from scd_datasets.sources.source import DamagedEpisode, EpisodeIndex, Finding, require_fps

ARRAYS = {STATE: "state", ENVIRONMENT_STATE: "keypoint", ACTION: "action"}
PUSHT_STATE, PUSHT_AGENT = 5, 2  # agent x y, block x y angle: how many values, how many are the robot's
CAMERA_NAMES = {"img": "image"}  # as LeRobot calls a lone camera
COMPRESSORS = {"blosc", "zstd", "zlib", "gzip", "lz4", "lzma", "bz2"}  # pickle is a zarr codec too
# A chunk that is not there would read as zeros: half a download as black images.
READ = {"array.read_missing_chunks": False}


def is_replay_buffer(root: Path) -> bool:
    """Says whether the folder has a replay buffer's layout."""
    return (root / "data").is_dir() and (root / "meta" / "episode_ends").is_dir()


class ReplayBuffer:
    """Reads the episodes of the zarr group in folder `root`: a `Source`. Arguments but `fps` as for
    LeRobotFolder.

    Every array (N, H, W, 3) is a camera, `state` is the robot's, `keypoint` the environment's. PushT's
    `state` ends with the block's pose; its keypoints give that without an angle that jumps, so it is not
    read.
    """

    camera_keys: tuple[str, ...] = ()
    imagined: str | None = None

    def __init__(
        self,
        root: str | Path,
        fps: int | None,
        cameras: Sequence[str] = (),
        image_size: int | None = None,
        letterbox: bool = False,
        multiple: int = MULTIPLE,
    ) -> None:
        self.root = Path(root)
        self.fps = require_fps(fps, root, "a replay buffer")
        with zarr.config.set(READ):
            group = zarr.open_group(self.root, mode="r")
            self._arrays = arrays_of(group, "data")
            self._ends = np.asarray(plain(arrays_of(group, "meta")["episode_ends"])[:]).astype(np.int64)
        if not len(self._ends) or (np.diff(self._ends, prepend=0) <= 0).any():
            raise ValueError(
                f"{root}: meta/episode_ends must rise from above 0, got {self._ends.tolist()[:8]}…"
            )
        if ARRAYS[ACTION] not in self._arrays:
            raise ValueError(f"{root} has no data/action: {sorted(self._arrays)}; nothing to learn from")
        self._columns = {key: name for key, name in ARRAYS.items() if name in self._arrays}
        self._cameras = choose_cameras(self._arrays, cameras)
        for name in (*self._columns.values(), *self._cameras.values()):
            plain(self._arrays[name])
        images = {camera: self._arrays[name] for camera, name in self._cameras.items()}
        self.sizes = {camera: (array.shape[1], array.shape[2]) for camera, array in images.items()}
        self.grid = ImageGrid(*common_size(list(self.sizes.values()), image_size, multiple), letterbox)
        lengths = np.diff(self._ends, prepend=0)
        self.episodes = [
            EpisodeIndex(index, int(length), (), "data", first=int(end - length))
            for index, (length, end) in enumerate(zip(lengths, self._ends, strict=True))
        ]

    def names(self, key: str) -> tuple[str, ...]:
        if key not in self._columns:
            return ()
        return tuple(f"{key.rsplit('.', 1)[-1]}_{i}" for i in range(self._width(key)))

    def low_dim(self, episode: EpisodeIndex) -> dict[str, np.ndarray]:
        return {
            key: self._rows(name, episode).reshape(-1, size(self._arrays[name]))[:, : self._width(key)]
            for key, name in self._columns.items()
        }

    def pixels(self, episode: EpisodeIndex) -> np.ndarray:
        out, views = self.grid.canvas(episode.length, len(self.sizes)), self.grid.views(self.sizes)
        for index, (camera, name) in enumerate(self._cameras.items()):
            resize_into(region_of(out, index, views[camera]), self._images(name, episode))
        return out

    def findings(self) -> list[Finding]:
        read = {*self._columns.values(), *self._cameras.values()}
        found = [Finding("no frame rate is stored", "meta", f"{self.fps} fps, as given")]
        if unread := [name for name in self._arrays if name not in read]:
            found.append(Finding(f"also recorded: {', '.join(unread)}", "data", "not read"))
        if STATE in self._columns and self._width(STATE) < size(self._arrays["state"]):
            what = f"state has {PUSHT_STATE} values, PushT's agent and block"
            found.append(Finding(what, "data/state", "the agent's are read; keypoint gives the block's pose"))
        rows = self._arrays["action"].shape[0]
        if rows > self._ends[-1]:
            what = f"{rows - self._ends[-1]} rows after the last episode's end"
            found.append(Finding(what, "data", "not read"))
        return found

    def read_options(self) -> list[Any]:
        return [list(self._cameras.items()), [self.grid.height, self.grid.width], self.grid.resize, self.fps]

    def _width(self, key: str) -> int:
        count = size(self._arrays[self._columns[key]])
        pusht = key == STATE and ENVIRONMENT_STATE in self._columns and count == PUSHT_STATE
        return PUSHT_AGENT if pusht else count

    def _rows(self, name: str, episode: EpisodeIndex) -> np.ndarray:
        """Reads the array's rows (L, …) of the episode; fewer where the array ends before."""
        try:
            return np.asarray(self._arrays[name][episode.first : episode.first + episode.length])
        except (RuntimeError, ValueError, OSError) as error:  # a codec, a checksum, a missing chunk, the disk
            raise DamagedEpisode(episode.index, f"data/{name}", f"cannot be read: {error}") from error

    def _images(self, name: str, episode: EpisodeIndex) -> np.ndarray:
        """Reads uint8 (L, h, w, 3); gray levels 0…255 may be stored as floats."""
        values = self._rows(name, episode)

        def damaged(what: str) -> DamagedEpisode:
            return DamagedEpisode(episode.index, f"data/{name}", what)

        if len(values) < episode.length:
            raise damaged(f"has {len(values)} of {episode.length} frames")
        if values.dtype == np.uint8:
            return values
        low, high = values.min(), values.max()
        if not (low >= 0 and high <= 255):  # NaN too
            raise damaged(f"holds values from {low:g} to {high:g}, expected gray levels 0…255")
        if values.dtype.kind == "f" and 0 < high <= 1:
            raise damaged(f"holds values up to {high:g}, expected gray levels 0…255: multiply by 255")
        return np.rint(values).astype(np.uint8)


def arrays_of(group: zarr.Group, name: str) -> dict[str, zarr.Array]:
    """Gives the arrays by name, in order, of the group's subgroup `name`."""
    found = group[name]
    if not isinstance(found, zarr.Group):
        raise ValueError(f"{name} is an array, expected a group of arrays: this is no replay buffer")
    return dict(sorted(found.arrays()))


def choose_cameras(arrays: dict[str, zarr.Array], wanted: Sequence[str]) -> dict[str, str]:
    """Gives camera → array, of those shaped (N, H, W, 3)."""
    images = [name for name, array in arrays.items() if array.ndim == 4 and array.shape[-1] == 3]
    found = {CAMERA_NAMES.get(name, name): name for name in images}
    if not found:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"no camera among data's arrays, which would be (N, height, width, 3): {shapes}")
    return wanted_of(found, wanted)


def plain(array: zarr.Array) -> zarr.Array:
    """Gives the array itself, if it holds plain values in a compression that cannot run code; else raises
    ValueError."""
    if array.dtype.kind not in "uifb":
        raise ValueError(f"{array.store_path}: dtype {array.dtype}; expected integers, floats or bool")
    if array.metadata.zarr_format == 2:
        used = [
            codec.codec_id for codec in (array.metadata.compressor, *(array.metadata.filters or ())) if codec
        ]
        if foreign := sorted(set(used) - COMPRESSORS):
            raise ValueError(
                f"{array.store_path} is stored with {', '.join(foreign)}; expected one of "
                f"{', '.join(sorted(COMPRESSORS))} alone"
            )
    return array


def size(array: zarr.Array) -> int:
    """Counts the values in a row."""
    return int(np.prod(array.shape[1:]))
