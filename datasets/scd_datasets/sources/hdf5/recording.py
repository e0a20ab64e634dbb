"""stable-worldmodel's recordings: one HDF5 file, an array per column with all episodes one after the other.

`ep_offset` and `ep_len` say where each lies. Its `World.collect` writes a row after every step, then moves
the actions up by one: row i holds an observation, the action taken at it, and the reward and flags that came
*with* the observation, those of the action before. The last row's action is the episode's first one, whose
observation was never written. So an episode of n rows has n − 1 steps, and their outcomes are one row later.

N rows, L steps of an episode, n values in a row, V cameras, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scd_datasets.sources.array_roles import (
    choose_low_dim,
    dim_labels,
    find_cameras,
    list_arrays,
    merged,
    open_camera,
    picture_findings,
)
from scd_datasets.sources.hdf5.files import arrays_in, open_file, read_rows, top_names
from scd_datasets.sources.images import MULTIPLE, ImageGrid, region_of, resize_into
from scd_datasets.sources.lerobot.features import (
    ACTION,
    ENVIRONMENT_STATE,
    REWARD,
    STATE,
    SUCCESS,
)
from scd_datasets.sources.picture_kind import to_rgb
from scd_datasets.sources.source import (
    DamagedEpisode,
    EpisodeIndex,
    Finding,
    every_nth,
    listed,
    require_fps,
)

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
KNOWN = (
    "HDF5 is read as stable-worldmodel writes it (ep_len, ep_offset, action, pixels), as robomimic does "
    "(data/demo_0/actions, obs), and as ALOHA does (action, observations/qpos, observations/images)"
)
GOAL_NAMES = ("goal_agent_x", "goal_agent_y", *(f"goal_{name}" for name in BLOCK_NAMES))


class Hdf5Recording:
    """Reads the episodes in an HDF5 file: a `Source`. Arguments but `fps` and `keys` as for LeRobotFolder.

    `pixels` is the camera, `pixels.<name>` several. An angle that jumps from 2π to 0 cannot be learned: of
    PushT's `state` the block's position, sine and cosine are read. Its goal, another one in each episode and
    shown in no image, is read as well: what reward and success are about.

    keys: column → LeRobot's name for it, where its own name does not say.
    """

    in_order = False
    camera_keys: tuple[str, ...] = ()

    def __init__(
        self,
        file: str | Path,
        fps: float | None,
        cameras: Sequence[str] = (),
        image_size: int | None = None,
        letterbox: bool = False,
        multiple: int = MULTIPLE,
        keys: Mapping[str, str] | None = None,
    ) -> None:
        self.root, self._keys = Path(file), dict(keys or {})
        self._arrays = open_columns(self.root)
        if missing := [name for name in (LENGTHS, OFFSETS) if name not in self._arrays]:
            raise unknown_layout(self.root, missing)
        self.fps = require_fps(fps, file, "a recording of stable-worldmodel", "data.fps=10 (PushT's own)")
        self._columns = choose_low_dim(self._arrays, usual_columns(self._arrays), self._keys, str(file))
        if ACTION not in self._columns:
            raise ValueError(
                f"{file} has no {ACTION}, only {', '.join(sorted(self._arrays))}. Where it has another name: "
                f"data.keys={{<array>: {ACTION}}}"
            )
        for name in (LENGTHS, OFFSETS):
            if self._arrays[name].dtype.kind not in "uif":
                raise ValueError(f"{file}: {name} is {self._arrays[name].dtype}; expected integers")
        usual = {name: short for name in sorted(self._arrays) if (short := camera_of(name))}
        shown, self._left_out = find_cameras(self._arrays, usual, self._keys, cameras, str(file))
        if not shown:
            there = list_arrays(self._arrays, self._left_out)
            raise ValueError(f"no camera, which would be called {PIXELS} or {PIXELS}.<name>: {there}")
        self._cameras = {
            short: open_camera(self._arrays[name], name, str(file)) for short, name in shown.items()
        }
        self.sizes = {short: camera.size for short, camera in self._cameras.items()}
        self.grid = ImageGrid.common(self.sizes, image_size, letterbox, multiple)
        self.episodes = self._list_episodes()
        self._pusht = is_pusht(self._arrays, self._columns)
        has_goal = GOAL in self._arrays and self._arrays[GOAL].shape[1:] == (7,)
        self._goal = self._pusht and has_goal and GOAL not in self._keys

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
        return dim_labels(key, {name: self._arrays[name] for name in self._columns[key]})

    def check_files(self, episode: EpisodeIndex) -> None:
        """Finds nothing: all that is read was opened with the recording."""

    def low_dim(self, episode: EpisodeIndex) -> dict[str, np.ndarray]:
        if episode.length < 1:
            raise DamagedEpisode(episode.index, episode.file, "has a single row; a step needs two")
        found = {
            key: merged([self._rows(name, episode, key in OUTCOMES) for name in names])
            for key, names in self._columns.items()
        }
        if self._pusht:
            found[ENVIRONMENT_STATE] = block(found[ENVIRONMENT_STATE])
        if self._goal:
            goal = self._rows(GOAL, episode)
            parts = [found[ENVIRONMENT_STATE], goal[:, :2], block(goal)]
            found[ENVIRONMENT_STATE] = np.concatenate(parts, axis=1)
        if CLOCK in self._arrays and CLOCK not in self._keys:
            clock = self._rows(CLOCK, episode).ravel()
            found["frame_index"] = clock - clock[:1]
        return found

    def pixels(self, episode: EpisodeIndex, every: int = 1) -> np.ndarray:
        count, views = every_nth(episode.length, every), self.grid.views(self.sizes)
        out = self.grid.canvas(count, len(self.sizes))
        for index, (short, camera) in enumerate(self._cameras.items()):
            images = self._rows(camera.name, episode)
            if len(images) < episode.length:
                what = f"{camera.name} has {len(images)} of {episode.length} frames"
                raise DamagedEpisode(episode.index, episode.file, what)
            try:
                resize_into(region_of(out, index, views[short]), to_rgb(images[::every], camera.scale))
            except ValueError as error:
                raise DamagedEpisode(episode.index, episode.file, f"{camera.name} {error}") from error
        return out

    def findings(self) -> list[Finding]:
        where = self.root.name
        read = {LENGTHS, OFFSETS, CLOCK, *(camera.name for camera in self._cameras.values())}
        read |= {name for names in self._columns.values() for name in names}
        found = [
            Finding("no frame rate is stored", where, f"{self.fps} fps, as given", False),
            Finding("the last row of an episode holds no action taken there", where, "left out", False),
        ]
        if self.imagined:
            done = "what is learned from it is what that world predicts"
            found.append(Finding(f"{self.imagined}, not recorded", where, done))
        if self._goal:
            read.add(GOAL)
            what = "every episode has a goal of its own, which no image shows"
            found.append(Finding(what, GOAL, "read into the state: reward and success are about it"))
        if self._columns.get(SUCCESS) == ("terminated",):
            found.append(Finding("success is not recorded", where, "terminated counts as success"))
        if unread := [name for name in self._arrays if name not in read]:
            found.append(Finding(f"also recorded: {', '.join(unread)}", where, "not read", notable=False))
        return found + self._left_out + picture_findings(self._cameras.values())

    def read_options(self) -> list[Any]:
        cameras = [(short, camera.name) for short, camera in self._cameras.items()]
        options = [cameras, [self.grid.height, self.grid.width], self.grid.resize, self.fps]
        return [*options, self._keys] if self._keys else options

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
        try:
            return read_rows(self._arrays[name], episode.first + later, episode.length)
        except (OSError, RuntimeError, ValueError) as error:  # a checksum, a compression, the disk
            raise DamagedEpisode(episode.index, episode.file, f"{name} cannot be read: {error}") from error


def open_columns(file: Path) -> dict[str, Any]:
    """Opens the file's arrays by name; ValueError where one lies in another file."""
    return arrays_in(open_file(file))


def unknown_layout(file: Path, missing: Sequence[str]) -> ValueError:
    """Gives the error of HDF5 that is no recording of a known layout: what it has, and what is read."""
    found = f"it has no {', '.join(missing)}, only {listed(top_names(file)) or 'nothing'}"
    return ValueError(
        f"{file} is HDF5 of an unknown layout: {found}. {KNOWN}. docs/data.md shows each, and how a window "
        "store is written of any other"
    )


def usual_columns(arrays: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Gives LeRobot's name → the column that has it; each column once."""
    chosen: dict[str, tuple[str, ...]] = {}
    for key, names in COLUMNS.items():
        if present := [name for name in names if name in arrays and (name,) not in chosen.values()]:
            chosen[key] = (present[0],)
    return chosen


def camera_of(column: str) -> str:
    """Gives the short name of a column's camera, "" where it holds none: `goal` is one and the same image
    throughout an episode."""
    if column == PIXELS:
        return "image"
    return column.removeprefix(f"{PIXELS}.") if column.startswith(f"{PIXELS}.") else ""


def is_pusht(arrays: Mapping[str, Any], columns: Mapping[str, tuple[str, ...]]) -> bool:
    """Says whether `state` holds swm/PushT-v1's poses: `proprio` must repeat where the agent is in them."""
    if (columns.get(STATE), columns.get(ENVIRONMENT_STATE)) != (("proprio",), (POSES,)):
        return False
    if any(name not in arrays or arrays[name].shape[1:] != (size,) for name, size in PUSHT_SIZES.items()):
        return False
    return bool(np.array_equal(arrays[POSES][:100][:, PUSHT_AGENT], arrays["proprio"][:100]))


def block(poses: np.ndarray) -> np.ndarray:
    """Gives, of PushT's poses (L, 7), the block's x, y, sin, cos (L, 4)."""
    return np.concatenate([poses[:, 2:4], np.sin(poses[:, 4:5]), np.cos(poses[:, 4:5])], axis=1)
