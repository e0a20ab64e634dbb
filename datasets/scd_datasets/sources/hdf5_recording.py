"""stable-worldmodel's recordings: one HDF5 file, an array per column with all episodes one after the other.

`ep_offset` and `ep_len` say where each lies. Its `World.collect` writes a row after every step, then moves
the actions up by one: row i holds an observation, the action taken at it, and the reward and flags that came
*with* the observation, those of the action before. The last row's action is the episode's first one, whose
observation was never written. So an episode of n rows has n − 1 steps, and their outcomes are one row later.

N rows, L steps of an episode, n values in a row, V cameras, H W pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scd_datasets.sources.images import ImageGrid, region_of, resize_into
from scd_datasets.sources.lerobot_features import (
    ACTION,
    ENVIRONMENT_STATE,
    MULTIPLE,
    REWARD,
    STATE,
    SUCCESS,
    common_size,
    wanted_of,
)
from scd_datasets.sources.source import DamagedEpisode, EpisodeIndex, Finding, require_fps

SUFFIXES = (".h5", ".hdf5")
LENGTHS, OFFSETS, CLOCK = "ep_len", "ep_offset", "step_idx"
IMAGINED = {"start_episode", "start_frame", "success_probability"}  # columns of our environments' info
PIXELS, GOAL, POSES = "pixels", "goal_state", "state"
COLUMNS = {  # the first one that is there
    STATE: ("proprio", "agent_pos", POSES),
    ENVIRONMENT_STATE: ("environment_state", POSES),
    ACTION: ("action",),
    REWARD: ("reward",),
    SUCCESS: ("is_success", "success", "terminated"),  # as `World.evaluate` counts: who terminates succeeds
}
OUTCOMES = (REWARD, SUCCESS)
# swm/PushT-v1: `proprio` is the agent's x y vx vy; `state`, and `goal_state`, the agent's x y, the block's
# x y angle, the agent's vx vy
PUSHT_SIZES, PUSHT_AGENT = {"proprio": 4, POSES: 7}, [0, 1, 5, 6]
PUSHT_NAMES = ("agent_x", "agent_y", "agent_vx", "agent_vy")
BLOCK_NAMES = ("block_x", "block_y", "block_sin", "block_cos")
GOAL_NAMES = ("goal_agent_x", "goal_agent_y", *(f"goal_{name}" for name in BLOCK_NAMES))


def hdf5_file(root: Path) -> Path | None:
    """Finds the HDF5 file that `root` names, or the one in it; None if there is none.

    Raises ValueError where a folder holds several.
    """
    if root.suffix in SUFFIXES and not root.is_dir():
        return root
    if not root.is_dir() or (root / "meta").is_dir():  # a LeRobotDataset may keep one beside it
        return None
    found = sorted(file for file in root.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise ValueError(f"{root} holds several recordings ({names}): name one, data.root={found[0]}")
    return found[0] if found else None


class Hdf5Recording:
    """Reads the episodes in an HDF5 file: a `Source`. Arguments but `fps` as for LeRobotFolder.

    `pixels` is the camera, `pixels.<name>` several. An angle that jumps from 2π to 0 cannot be learned: of
    PushT's `state` the block's position, sine and cosine are read. Its goal, another one in each episode and
    shown in no image, is read as well: what reward and success are about.
    """

    camera_keys: tuple[str, ...] = ()

    def __init__(
        self,
        file: str | Path,
        fps: int | None,
        cameras: Sequence[str] = (),
        image_size: int | None = None,
        letterbox: bool = False,
        multiple: int = MULTIPLE,
    ) -> None:
        self.root = Path(file)
        self.fps = require_fps(fps, file, "a recording of stable-worldmodel")
        self._arrays = open_hdf5(self.root)
        if missing := sorted({LENGTHS, OFFSETS, *COLUMNS[ACTION]} - set(self._arrays)):
            raise ValueError(f"{file} has no {', '.join(missing)}, only {', '.join(sorted(self._arrays))}")
        self._columns = choose_columns(self._arrays)
        self._cameras = choose_cameras(self._arrays, cameras)
        for name in (LENGTHS, OFFSETS, *self._columns.values()):
            if self._arrays[name].dtype.kind not in "uifb":
                raise ValueError(
                    f"{file}: {name} is {self._arrays[name].dtype}; expected integers, floats or bool"
                )
        self.sizes = {camera: self._arrays[name].shape[1:3] for camera, name in self._cameras.items()}
        self.grid = ImageGrid(*common_size(list(self.sizes.values()), image_size, multiple), letterbox)
        self.episodes = self._list_episodes()
        self._pusht = is_pusht(self._arrays)
        self._goal = self._pusht and GOAL in self._arrays and self._arrays[GOAL].shape[1:] == (7,)

    @property
    def imagined(self) -> str | None:
        """Says what columns that only a world's environment reports tell."""
        return "imagined by a world that its marks do not name" if set(self._arrays) >= IMAGINED else None

    def names(self, key: str) -> tuple[str, ...]:
        if key not in self._columns:
            return ()
        if self._pusht and key == STATE:
            return PUSHT_NAMES
        if self._pusht and key == ENVIRONMENT_STATE:
            return BLOCK_NAMES + (GOAL_NAMES if self._goal else ())
        count = int(np.prod(self._arrays[self._columns[key]].shape[1:]))
        return tuple(f"{key.rsplit('.', 1)[-1]}_{i}" for i in range(count))

    def low_dim(self, episode: EpisodeIndex) -> dict[str, np.ndarray]:
        if episode.length < 1:
            raise DamagedEpisode(episode.index, episode.file, "has a single row; a step needs two")
        found = {key: self._rows(name, episode, key in OUTCOMES) for key, name in self._columns.items()}
        if self._pusht:
            found[ENVIRONMENT_STATE] = block(found[ENVIRONMENT_STATE])
        if self._goal:
            goal = self._rows(GOAL, episode)
            parts = [found[ENVIRONMENT_STATE], goal[:, :2], block(goal)]
            found[ENVIRONMENT_STATE] = np.concatenate(parts, axis=1)
        if CLOCK in self._arrays:
            clock = self._rows(CLOCK, episode).ravel()
            found["frame_index"] = clock - clock[:1]
        return found

    def pixels(self, episode: EpisodeIndex) -> np.ndarray:
        out, views = self.grid.canvas(episode.length, len(self.sizes)), self.grid.views(self.sizes)
        for index, (camera, name) in enumerate(self._cameras.items()):
            view, images = views[camera], self._rows(name, episode)
            if len(images) < episode.length:
                what = f"{name} has {len(images)} of {episode.length} frames"
                raise DamagedEpisode(episode.index, episode.file, what)
            resize_into(region_of(out, index, view), images)
        return out

    def findings(self) -> list[Finding]:
        where = self.root.name
        read = {*self._columns.values(), *self._cameras.values(), LENGTHS, OFFSETS, CLOCK}
        found = [
            Finding("no frame rate is stored", where, f"{self.fps} fps, as given"),
            Finding("the last row of an episode holds no action taken there", where, "left out"),
        ]
        if self.imagined:
            done = "what is learned from it is what that world predicts"
            found.append(Finding(f"{self.imagined}, not recorded", where, done))
        if self._goal:
            read.add(GOAL)
            what = "every episode has a goal of its own, which no image shows"
            found.append(Finding(what, GOAL, "read into the state: reward and success are about it"))
        if self._columns.get(SUCCESS) == "terminated":
            found.append(Finding("success is not recorded", where, "terminated counts as success"))
        if unread := [name for name in self._arrays if name not in read]:
            found.append(Finding(f"also recorded: {', '.join(unread)}", where, "not read"))
        return found

    def read_options(self) -> list[Any]:
        return [list(self._cameras.items()), [self.grid.height, self.grid.width], self.grid.resize, self.fps]

    def _list_episodes(self) -> list[EpisodeIndex]:
        lengths, offsets = (self._arrays[name][:].astype(np.int64) for name in (LENGTHS, OFFSETS))
        if not len(lengths) or len(lengths) != len(offsets) or (lengths < 1).any() or (offsets < 0).any():
            raise ValueError(
                f"{self.root}: expected {LENGTHS} of 1 or more and as many {OFFSETS} of 0 or more, got "
                f"{lengths.tolist()[:8]}… and {offsets.tolist()[:8]}…"
            )
        return [
            EpisodeIndex(index, int(length) - 1, (), self.root.name, first=int(first))
            for index, (length, first) in enumerate(zip(lengths, offsets, strict=True))
        ]

    def _rows(self, name: str, episode: EpisodeIndex, later: bool = False) -> np.ndarray:
        """Reads the episode's rows (L, …), or those one row later; fewer where the array ends before."""
        array, first = self._arrays[name], episode.first + later
        try:
            if unwritten(array, first, episode.length):
                raise OSError("a part of these rows was never written")
            return array[first : first + episode.length]
        except (OSError, RuntimeError, ValueError) as error:  # a checksum, a compression, the disk
            raise DamagedEpisode(episode.index, episode.file, f"{name} cannot be read: {error}") from error


def open_hdf5(file: Path) -> dict[str, Any]:
    """Opens the file's arrays by name; ValueError where one lies in another file."""
    try:
        import h5py
        import hdf5plugin  # noqa: F401 (brings the compressions that published recordings use)
    except ImportError as error:
        raise ValueError(
            f"{file} is HDF5, which an extra reads: pip install 'lerobot_env_scd_world[swm]' ({error})"
        ) from error
    if not file.is_file():
        raise FileNotFoundError(f"no recording at {file}")
    try:
        opened = h5py.File(file, "r")
    except OSError as error:
        raise ValueError(
            f"{file} cannot be opened ({error}): restore it from a copy, or let its writer finish"
        ) from error
    arrays = {}
    for name in opened:
        if not isinstance(opened.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{file}: {name} is a link, maybe to another file; expected arrays alone")
        array = opened[name]
        if not isinstance(array, h5py.Dataset):
            continue
        if array.is_virtual or array.external:
            raise ValueError(f"{file}: the values of {name} lie in other files; copy them into this one")
        arrays[name] = array
    return arrays


def choose_columns(arrays: Mapping[str, Any]) -> dict[str, str]:
    """Gives LeRobot's name → the array's; each array once."""
    chosen: dict[str, str] = {}
    for key, names in COLUMNS.items():
        present = [name for name in names if name in arrays and name not in chosen.values()]
        if present:
            chosen[key] = present[0]
    return chosen


def choose_cameras(arrays: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, str]:
    """Gives camera → array. `goal` is no camera: it is one and the same image throughout an episode."""
    found = {
        name.removeprefix(f"{PIXELS}.") if name != PIXELS else "image": name
        for name in sorted(arrays)
        if name == PIXELS or name.startswith(f"{PIXELS}.")
    }
    if not found:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in sorted(arrays.items()))
        raise ValueError(f"no camera, which would be called {PIXELS} or {PIXELS}.<name>: {shapes}")
    chosen = wanted_of(found, wanted)
    for name in found.values():
        array = arrays[name]
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3:
            raise ValueError(
                f"{name} is {array.dtype} {array.shape}; expected uint8 (rows, height, width, 3). Record "
                "without an image_transform"
            )
    return chosen


def is_pusht(arrays: Mapping[str, Any]) -> bool:
    """Says whether `state` holds swm/PushT-v1's poses: `proprio` must repeat where the agent is in them."""
    if any(name not in arrays or arrays[name].shape[1:] != (size,) for name, size in PUSHT_SIZES.items()):
        return False
    return bool(np.array_equal(arrays[POSES][:100][:, PUSHT_AGENT], arrays["proprio"][:100]))


def block(poses: np.ndarray) -> np.ndarray:
    """Gives, of PushT's poses (L, 7), the block's x, y, sin, cos (L, 4)."""
    return np.concatenate([poses[:, 2:4], np.sin(poses[:, 4:5]), np.cos(poses[:, 4:5])], axis=1)


def unwritten(array: Any, first: int, length: int) -> bool:
    """Says whether a chunk of these rows is missing in the file: HDF5 reads it as zeros, a black image."""
    if array.chunks is None:
        return False
    rows = min(first + length, array.shape[0])
    step, *steps = array.chunks
    corners = itertools.product(
        range(first - first % step, rows, step),
        *(range(0, size, step) for size, step in zip(array.shape[1:], steps, strict=True)),
    )
    return any(array.id.get_chunk_info_by_coord(corner).byte_offset is None for corner in corners)
