"""Diffusion Policy's replay buffer: a zarr group with all episodes one after the other in `data`'s arrays.

`meta/episode_ends` says where each ends. Row i of every array belongs to one time step: the observation, and
the action taken at it (its recorder observes, acts, writes both down, and only then steps). Neither a frame
rate nor a task is stored. Real robots' buffers (`replay_buffer.zarr`) have their pictures in videos beside
them. UMI's, of a gripper that people carry, have no action: it is where the gripper is one row later.

N rows, L steps of an episode, V cameras, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scd_datasets.sources.array_roles import (
    Camera,
    choose_low_dim,
    dim_labels,
    find_cameras,
    list_arrays,
    merged,
    open_camera,
    picture_findings,
    proprioception,
    row_size,
)
from scd_datasets.sources.images import MULTIPLE, ImageGrid, region_of, resize_into
from scd_datasets.sources.lerobot.features import (
    ACTION,
    ENVIRONMENT_STATE,
    STATE,
    SUCCESS,
    wanted_of,
)
from scd_datasets.sources.picture_kind import to_rgb
from scd_datasets.sources.replay.videos import ReplayVideos
from scd_datasets.sources.replay.zarr_files import BUFFER, ENDS, open_buffer, plain, why_unreadable
from scd_datasets.sources.source import DamagedEpisode, EpisodeIndex, Finding, every_nth, require_fps

PUSHT_STATE, PUSHT_AGENT = 5, 2  # agent x y, block x y angle: how many values, how many are the robot's
CAMERA_NAMES = {"img": "image"}  # as LeRobot calls a lone camera
VIDEOS, TIME = "videos", "timestamp"
USUAL_FPS = "data.fps=10 (PushT's own, and usual for Diffusion Policy's robots), data.fps=60 for UMI's"
FRACTIONS = (7.5, 12.5, 23.976, 29.97, 59.94, 119.88)  # rates that are common and not whole
SAME_RATE = 1e-3  # of a rate: what a clock may be off; by more it is another rate
STEADY = 0.1  # of the time between two rows: how far it may differ where timestamps give the frame rate


class ReplayBuffer:
    """Reads the episodes of the zarr group in folder or zip file `root`: a `Source`. Arguments but these as
    for LeRobotFolder.

    Every array of pictures is a camera, `state` is the robot's (without one: the poses of its joints, hand
    and gripper), `keypoint` the environment's. PushT's `state` ends with the block's pose; its keypoints give
    that without an angle that jumps, so it is not read.

    fps: by default what `timestamp` says, where it was recorded.
    keys: array → LeRobot's name for it; several of one name lie side by side.
    """

    in_order = False
    camera_keys: tuple[str, ...] = ()
    imagined: str | None = None

    def __init__(
        self,
        root: str | Path,
        fps: float | None,
        cameras: Sequence[str] = (),
        image_size: int | None = None,
        letterbox: bool = False,
        multiple: int = MULTIPLE,
        keys: Mapping[str, str] | None = None,
        decoder: str = "auto",
    ) -> None:
        self.root, self._keys = Path(root), dict(keys or {})
        self._arrays, ends = open_buffer(self.root)
        if not len(ends) or (np.diff(ends, prepend=0) <= 0).any():
            raise ValueError(f"{root}: {ENDS} must rise from above 0, got {ends.tolist()[:8]}…")
        self._ends, lengths = ends, np.diff(ends, prepend=0)
        timed = TIME in self._arrays and TIME not in self._keys
        self._recorded_fps = recorded_fps(plain(self._arrays[TIME]), ends) if timed else None
        self.fps = fps or self._recorded_fps or require_fps(None, root, "a replay buffer", USUAL_FPS)
        usual = usual_arrays(self._arrays)
        self._columns = choose_low_dim(self._arrays, usual, self._keys, str(root))
        self._later = ACTION not in self._columns  # the pose one row later is the action
        if self._later:
            self._columns[ACTION] = umi_action(self._columns.get(STATE, ()), self._arrays, root)
            lengths = lengths - 1  # the last row's is not known
        for name in (name for names in self._columns.values() for name in names):
            plain(self._arrays[name])
        self._choose_cameras(cameras, decoder)
        self.grid = ImageGrid.common(self.sizes, image_size, letterbox, multiple)
        folder = "data" if self.root.is_file() or (self.root / "data").is_dir() else f"{BUFFER}/data"
        self.episodes = [
            EpisodeIndex(index, int(length), (), folder, first=int(end - full))
            for index, (length, full, end) in enumerate(
                zip(lengths, np.diff(ends, prepend=0), ends, strict=True)
            )
        ]

    def _choose_cameras(self, wanted: Sequence[str], decoder: str) -> None:
        """Finds the cameras among the arrays, or where there is none among the videos beside the buffer."""
        arrays, where = self._arrays, str(self.root)
        names = {name: CAMERA_NAMES.get(name, name) for name in arrays}
        found, self._left_out = find_cameras(arrays, names, self._keys, (), where)
        self._videos: ReplayVideos | None = None
        self._cameras: dict[str, Camera] = {}
        self.sizes: dict[str, tuple[int, int]]
        if found:
            shown, _ = find_cameras(arrays, names, self._keys, wanted, where)
            self._cameras = {
                short: open_camera(plain(arrays[name]), name, where) for short, name in shown.items()
            }
            self.sizes = {short: camera.size for short, camera in self._cameras.items()}
            return
        if (self.root / VIDEOS).is_dir():
            self._videos = ReplayVideos(self.root / VIDEOS, decoder)
        if self._videos is None or not self._videos.sizes:
            raise no_camera(self.root, list_arrays(arrays, self._left_out))
        self.sizes = wanted_of(self._videos.sizes, wanted)

    def names(self, key: str) -> tuple[str, ...]:
        arrays = {name: self._arrays[name] for name in self._columns.get(key, ())}
        return dim_labels(key, arrays)[: self._width(key)] if arrays else ()

    def check_files(self, episode: EpisodeIndex) -> None:
        if self._videos:  # arrays were opened with the recording
            self._videos.check(episode, self.sizes)

    def low_dim(self, episode: EpisodeIndex) -> dict[str, np.ndarray]:
        if not episode.length:
            raise DamagedEpisode(episode.index, episode.file, "has a single row; a step needs two")
        found = {}
        for key, names in self._columns.items():
            later = self._later and key == ACTION
            rows = [
                self._rows(name, episode, later).reshape(-1, row_size(self._arrays[name])) for name in names
            ]
            found[key] = merged(rows)[:, : self._width(key)]
        if SUCCESS in found:
            found[SUCCESS] = found[SUCCESS].astype(bool)
        return found

    def pixels(self, episode: EpisodeIndex, every: int = 1) -> np.ndarray:
        count, views = every_nth(episode.length, every), self.grid.views(self.sizes)
        out = self.grid.canvas(count, len(self.sizes))
        for index, short in enumerate(self.sizes):
            frames = region_of(out, index, views[short])
            if self._videos:
                self._videos.fill(frames, episode, short, self.fps / every)
            else:
                resize_into(frames, self._images(self._cameras[short], episode, every))
        return out

    def findings(self) -> list[Finding]:
        found = [self._fps_finding()]
        told = {*self._read_names(), TIME, *(finding.where for finding in self._left_out)}
        if unread := [name for name in self._arrays if name not in told]:
            found.append(Finding(f"also recorded: {', '.join(unread)}", "data", "not read", notable=False))
        if STATE in self._columns and self._width(STATE) < self._recorded_width(STATE):
            what = f"state has {PUSHT_STATE} values, PushT's agent and block"
            found.append(Finding(what, "data/state", "the agent's are read; keypoint gives the block's pose"))
        if self._later:
            done = f"where {', '.join(self._columns[ACTION])} are one row later, to be reached"
            found.append(Finding("no action is recorded", "data", done))
        rows = self._arrays[self._columns[ACTION][0]].shape[0]
        if rows > self._ends[-1]:
            what = f"{rows - self._ends[-1]} rows after the last episode's end"
            found.append(Finding(what, "data", "not read"))
        return found + self._left_out + picture_findings(self._cameras.values())

    def read_options(self) -> list[Any]:
        cameras = [(short, camera.name) for short, camera in self._cameras.items()]
        if self._videos:
            cameras = [(short, f"{VIDEOS}/*/{self._videos.files[short]}") for short in self.sizes]
        options = [cameras, [self.grid.height, self.grid.width], self.grid.resize, self.fps]
        return [*options, self._keys] if self._keys else options

    def _fps_finding(self) -> Finding:
        if self._recorded_fps is None:
            return Finding("no frame rate is stored", "meta", f"{self.fps} fps, as given", False)
        what, where = f"{self._recorded_fps} rows a second", f"data/{TIME}"
        same = self.fps == self._recorded_fps
        return Finding(what, where, "the frame rate" if same else f"{self.fps} fps, as given", not same)

    def _read_names(self) -> list[str]:
        low_dim = [name for names in self._columns.values() for name in names]
        return [*low_dim, *(camera.name for camera in self._cameras.values())]

    def _width(self, key: str) -> int:
        """Counts the values of a row of `key` that are read."""
        count = self._recorded_width(key)
        pusht = (self._columns.get(STATE), self._columns.get(ENVIRONMENT_STATE)) == (
            ("state",),
            ("keypoint",),
        )
        return PUSHT_AGENT if pusht and key == STATE and count == PUSHT_STATE else count

    def _recorded_width(self, key: str) -> int:
        return sum(row_size(self._arrays[name]) for name in self._columns[key])

    def _rows(self, name: str, episode: EpisodeIndex, later: bool = False) -> np.ndarray:
        """Reads the array's rows (L, …) of the episode, or those one row later; fewer where the array ends
        before."""
        first = episode.first + later
        try:
            return np.asarray(self._arrays[name][first : first + episode.length])
        except (RuntimeError, ValueError, OSError) as error:  # a codec, a checksum, a missing chunk, the disk
            raise DamagedEpisode(
                episode.index, f"data/{name}", f"cannot be read: {why_unreadable(error)}"
            ) from error

    def _images(self, camera: Camera, episode: EpisodeIndex, every: int) -> np.ndarray:
        """Reads every n-th frame, uint8 (⌈L/n⌉, h, w, 3)."""
        values = self._rows(camera.name, episode)
        try:
            if len(values) < episode.length:
                raise ValueError(f"has {len(values)} of {episode.length} frames")
            return to_rgb(values[::every], camera.scale)
        except ValueError as error:
            raise DamagedEpisode(episode.index, f"data/{camera.name}", str(error)) from error


def usual_arrays(arrays: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Gives LeRobot's name → the arrays that usually are it."""
    return {
        STATE: ("state",) if "state" in arrays else tuple(proprioception(arrays)),
        ENVIRONMENT_STATE: ("keypoint",),
        ACTION: ("action" if "action" in arrays else "actions",),
    }


def umi_action(pose: tuple[str, ...], arrays: Mapping[str, Any], root: str | Path) -> tuple[str, ...]:
    """Gives the arrays of UMI's action, the gripper's pose; ValueError where it is no recording of UMI's."""
    if any(name.endswith(("gripper_width", "eef_pos")) for name in pose):
        return pose
    raise ValueError(
        f"{root} has no data/action: {sorted(arrays)}; nothing to learn from. Where the action has another "
        "name: data.keys={<array>:action}"
    )


def recorded_fps(timestamps: Any, ends: np.ndarray) -> float | None:
    """Gives the rows a second that timestamps (N,) in seconds say, whole or usual where they are as good as
    that; None where they are not steady."""
    if timestamps.dtype.kind != "f" or timestamps.shape[0] < ends[-1]:
        return None
    steps = np.diff(np.asarray(timestamps[: ends[-1]], np.float64).ravel())
    within = np.delete(steps, ends[:-1] - 1)  # not from one episode to the next
    usual = float(np.median(within)) if len(within) else 0.0
    if not usual > 0 or not (np.abs(within - usual) <= STEADY * usual).all():  # NaN is neither
        return None
    rate = 1 / float(within.mean())  # the median's step may be a rounded one: 33 ms of 30 rows a second
    nearest = min((round(rate), *FRACTIONS), key=lambda one: abs(one - rate))
    return nearest if abs(nearest - rate) <= SAME_RATE * rate else float(f"{rate:.5g}")


def no_camera(root: Path, there: str) -> ValueError:
    """Gives the error of a buffer without pictures, which says where they may be."""
    if root.name == BUFFER and (root.parent / VIDEOS).is_dir():
        return ValueError(f"{root} has its pictures beside it: data.root={root.parent}")
    return ValueError(
        f"no camera among data's arrays, which would be uint8 (N, height, width, 3), and none in "
        f"{VIDEOS}/<episode>/<camera>.mp4 beside {BUFFER}: {there}"
    )
