"""HDF5 recordings with a group per episode, in one file or in a file each: robomimic's and ALOHA's.

What the arrays in a group mean says `layouts.py`. Every episode must have the arrays of a model one, in the
same shapes: of the first, the middle and the last one, that with the most.

L steps of an episode, V cameras, H W pixels of the grid, h w of a frame as recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
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
)
from scd_datasets.sources.hdf5.encoded_frames import EncodedFrames, is_encoded
from scd_datasets.sources.hdf5.files import array_at, arrays_in, group_at, open_file, read_rows
from scd_datasets.sources.hdf5.layouts import Layout
from scd_datasets.sources.images import MULTIPLE, ImageGrid, region_of, resize_into
from scd_datasets.sources.lerobot.features import ACTION, STATE, SUCCESS
from scd_datasets.sources.picture_kind import to_rgb
from scd_datasets.sources.source import DamagedEpisode, EpisodeIndex, Finding, every_nth, require_fps

AT_ONCE = 2**25  # bytes of a camera's frames that are read in one piece: 36 of 480 × 640
UNREADABLE = (OSError, RuntimeError, ValueError, KeyError)


class Hdf5Episodes:
    """Reads the episodes in the groups of HDF5 files: a `Source`. Arguments but these as for LeRobotFolder.

    files: one, or one for each episode, which lie in folder `root`.
    fps: where the recording stores none.
    keys: recorded array (`obs/robot0_eef_pos`) → LeRobot's name for it; several of one name lie side by side.
    """

    in_order = False
    camera_keys: tuple[str, ...] = ()
    imagined: str | None = None

    def __init__(
        self,
        root: str | Path,
        files: Sequence[Path],
        layout: Layout,
        fps: float | None,
        cameras: Sequence[str] = (),
        image_size: int | None = None,
        letterbox: bool = False,
        multiple: int = MULTIPLE,
        keys: Mapping[str, str] | None = None,
    ) -> None:
        self.root, self._folder, self._layout = Path(root), files[0].parent, layout
        self._keys = dict(keys or {})
        self._open = lru_cache(maxsize=2)(open_file)
        self._groups: list[str] = []  # of each episode
        self.episodes = list(self._list_episodes(files))
        model = self._model_episode()
        file, arrays = self._open(self._folder / model.file), self._all_arrays(model)
        self._stored_fps = layout.stored_fps(file)
        if fps is not None and self._stored_fps not in (None, fps):
            raise ValueError(
                f"{root} was recorded at {self._stored_fps} fps, data.fps={fps}: leave data.fps out"
            )
        self.fps = self._stored_fps or require_fps(fps, root, layout.what, layout.usual_fps)
        self._columns = choose_low_dim(arrays, layout.roles(arrays), self._keys, str(root))
        if ACTION not in self._columns:
            raise ValueError(
                f"{root}: data.keys={self._keys} leaves no action, and a world predicts what one does: name "
                f"it as well, data.keys={{<array>: {ACTION}}}"
            )
        usual = {name: short for name in arrays if (short := layout.camera_of(name))}
        shown, self._left_out = find_cameras(arrays, usual, self._keys, cameras, str(root))
        if not shown:
            there = list_arrays(arrays, self._left_out)
            raise ValueError(
                f"{root} has no camera, and a world predicts images: {layout.no_camera}. {there}"
            )
        self._cameras = {short: open_camera(arrays[name], name, str(root)) for short, name in shown.items()}
        self._shapes = {name: array.shape[1:] for name, array in arrays.items()}
        self._names = {
            key: self._label(key, {name: arrays[name] for name in names})
            for key, names in self._columns.items()
        }
        self._encoded = [name for name in shown.values() if isinstance(arrays[name], EncodedFrames)]
        self.sizes = {short: camera.size for short, camera in self._cameras.items()}
        self.grid = ImageGrid.common(self.sizes, image_size, letterbox, multiple)

    def names(self, key: str) -> tuple[str, ...]:
        return self._names.get(key, ())

    def check_files(self, episode: EpisodeIndex) -> None:
        """Raises DamagedEpisode where an array has another shape than elsewhere, or too few rows."""
        for name, array in self._arrays(episode).items():
            what = ""
            if array.shape[1:] != self._shapes[name]:
                what = f"a row of {name} is {array.shape[1:]}, elsewhere {self._shapes[name]}"
            elif array.shape[0] < episode.length:
                what = f"{name} has {array.shape[0]} of {episode.length} rows"
            if what:
                raise DamagedEpisode(episode.index, episode.file, what)

    def low_dim(self, episode: EpisodeIndex) -> dict[str, np.ndarray]:
        arrays = self._arrays(episode)
        try:
            found = {
                key: merged([read_rows(arrays[name], 0, episode.length) for name in names])
                for key, names in self._columns.items()
            }
        except UNREADABLE as error:
            raise DamagedEpisode(episode.index, episode.file, str(error)) from error
        if SUCCESS in found:
            found[SUCCESS] = found[SUCCESS].astype(bool)
        return found

    def pixels(self, episode: EpisodeIndex, every: int = 1) -> np.ndarray:
        count, views = every_nth(episode.length, every), self.grid.views(self.sizes)
        out = self.grid.canvas(count, len(self.sizes))
        arrays = self._arrays(episode)
        for index, (short, camera) in enumerate(self._cameras.items()):
            try:
                fill_frames(region_of(out, index, views[short]), arrays[camera.name], camera, every)
            except UNREADABLE as error:
                what = f"{camera.name} cannot be read: {error}"
                raise DamagedEpisode(episode.index, episode.file, what) from error
        return out

    def findings(self) -> list[Finding]:
        where, found = self.root.name, []
        if self._stored_fps is None:
            found.append(Finding("no frame rate is stored", where, f"{self.fps} fps, as given", False))
        if self._encoded:
            what = "compressed pictures, which some recorders write with red and blue exchanged"
            found.append(Finding(what, ", ".join(self._encoded), "read as their file format says", False))
        told = {"dones", *self._used(), *(finding.where for finding in self._left_out)}
        if unread := [name for name in self._shapes if name not in told]:
            done = "not read; data.keys chooses what is"
            found.append(Finding(f"also recorded: {', '.join(unread)}", where, done, notable=False))
        if "dones" in self._shapes and SUCCESS not in self._columns:
            done = "not read; where it means that the task is fulfilled: data.keys={dones:next.success}"
            found.append(Finding("when an episode is done", "dones", done))
        return found + self._left_out + picture_findings(self._cameras.values())

    def read_options(self) -> list[Any]:
        cameras = [(short, camera.name) for short, camera in self._cameras.items()]
        columns = [[key, *names] for key, names in self._columns.items()]
        return [cameras, [self.grid.height, self.grid.width], self.grid.resize, self.fps, columns]

    # ------------------------------------------------------------------------------------- files

    def _list_episodes(self, files: Sequence[Path]) -> Iterator[EpisodeIndex]:
        """Lists the episodes; one that cannot be read has no step, and is damage when it is asked for."""
        for file in files:
            try:
                opened = self._open(file)
                groups, task = self._layout.find_groups(opened), self._layout.task(opened)
            except UNREADABLE:
                groups, task = [""], ""
            for group in groups:
                self._groups.append(group)
                yield self._measure(
                    EpisodeIndex(len(self._groups) - 1, 0, (task,) if task else (), file.name)
                )

    def _measure(self, episode: EpisodeIndex) -> EpisodeIndex:
        """Gives the episode with its length: that of its action."""
        asked = [name for name, feature in self._keys.items() if feature == ACTION]
        for name in (*asked, self._layout.action):
            try:
                length = int(array_at(self._group(episode), name).shape[0])
            except UNREADABLE:
                continue
            return EpisodeIndex(episode.index, length, episode.tasks, episode.file)
        return episode

    def _model_episode(self) -> EpisodeIndex:
        """Picks the one that others are compared with: the first one may be what lacks a camera."""
        good = [episode for episode in self.episodes if episode.length]
        if not good:
            raise ValueError(
                f"{self.root}: no episode can be read; the first one: {self._why_not(self.episodes[0])}. "
                "Another name of the action is given by data.keys={<recorded>:action}"
            )
        looked_at = [good[0], good[len(good) // 2], good[-1]]
        return max(looked_at, key=lambda episode: len(self._all_arrays(episode)))

    def _why_not(self, episode: EpisodeIndex) -> str:
        try:
            return f"has no {self._layout.action}, only {', '.join(self._all_arrays(episode)) or 'nothing'}"
        except UNREADABLE as error:
            return str(error)

    def _group(self, episode: EpisodeIndex) -> Any:
        return group_at(self._open(self._folder / episode.file), self._groups[episode.index])

    def _all_arrays(self, episode: EpisodeIndex) -> dict[str, Any]:
        """Opens the arrays in the episode's group by name, but those that repeat others."""
        arrays = arrays_in(self._group(episode), self._layout.depth)
        kept = {name: array for name, array in arrays.items() if array.shape}
        return _decoded({n: a for n, a in kept.items() if not n.startswith(self._layout.repeats)})

    def _arrays(self, episode: EpisodeIndex) -> dict[str, Any]:
        """Opens the arrays that are read of the episode; DamagedEpisode where one is not there."""
        try:
            if not episode.length:
                raise ValueError(self._why_not(episode))
            return _decoded({name: array_at(self._group(episode), name) for name in self._used()})
        except UNREADABLE as error:
            raise DamagedEpisode(episode.index, episode.file, str(error)) from error

    def _used(self) -> Iterable[str]:
        low_dim = [name for names in self._columns.values() for name in names]
        return dict.fromkeys([*low_dim, *(camera.name for camera in self._cameras.values())])

    def _label(self, key: str, arrays: Mapping[str, Any]) -> tuple[str, ...]:
        names = dim_labels(key, arrays)
        return self._layout.names.get(len(names), names) if key in (STATE, ACTION) else names


def fill_frames(frames: np.ndarray, array: Any, camera: Camera, every: int = 1) -> None:
    """Writes every n-th of the camera's frames, resized, into uint8 (⌈L/n⌉, h, w, 3); a piece at a time."""
    step = max(1, AT_ONCE // (int(np.prod(array.shape[1:])) * array.dtype.itemsize))
    for first in range(0, len(frames), step):
        piece = frames[first : first + step]
        images = read_rows(array, first * every, (len(piece) - 1) * every + 1, every)
        resize_into(piece, to_rgb(images, camera.scale))


def _decoded(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Lets encoded frames look like decoded ones."""
    return {name: EncodedFrames(array) if is_encoded(array) else array for name, array in arrays.items()}
