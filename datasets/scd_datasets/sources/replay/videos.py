"""The videos beside a real robot's replay buffer: `videos/<episode>/<camera>.mp4`, begun with the episode.

They have a rate of their own, usually three times that of the rows: a row is shown by the frame that is
nearest to its time.

L steps of an episode, h w pixels of a camera's region.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from scd_datasets.sources.lerobot.video_files import video_facts
from scd_datasets.sources.source import DamagedEpisode, EpisodeIndex
from scd_datasets.sources.video_readers import LATE, VideoReadError, video_class


class ReplayVideos:
    """Reads the videos in a folder, those of the cameras that the first episode has.

    ## Attributes
    `files`: camera (`camera_0`) → its file's name in an episode's folder. `sizes`: camera → (height, width).
    """

    def __init__(self, folder: Path, decoder: str) -> None:
        self._folder, self._reader = folder, video_class(decoder)[0]
        found = sorted((folder / "0").glob("*.mp4"), key=lambda file: (len(file.stem), file.stem))
        self.files = {
            f"camera_{file.stem}" if file.stem.isdecimal() else file.stem: file.name for file in found
        }
        streams = {camera: stream_of(folder / "0" / name) for camera, name in self.files.items()}
        self.sizes = {camera: size for camera, (size, _) in streams.items()}
        self._rates = {camera: rate for camera, (_, rate) in streams.items()}

    def check(self, episode: EpisodeIndex, cameras: Iterable[str]) -> None:
        """Raises DamagedEpisode where a camera has no video of the episode, or one of another size."""
        for camera in cameras:
            file = self._file(episode, camera)
            if not file.is_file():
                raise DamagedEpisode(episode.index, self._name(file), "there is no such video")
            try:
                size, _ = stream_of(file)
            except VideoReadError as error:
                raise DamagedEpisode(episode.index, self._name(file), str(error)) from error
            if size != self.sizes[camera]:
                what = f"is {size[0]} × {size[1]}, in the first episode {self.sizes[camera]}"
                raise DamagedEpisode(episode.index, self._name(file), what)

    def fill(self, frames: np.ndarray, episode: EpisodeIndex, camera: str, fps: float) -> None:
        """Writes the frames at the rows' times, 1/fps seconds apart, into uint8 (rows, h, w, 3)."""
        file, times = self._file(episode, camera), np.arange(len(frames)) / fps
        late = LATE / min(fps, self._rates[camera])  # of the rows' step or the frames', the longer one
        try:
            row = self._reader(file, frames.shape[1:3]).nearest(times, frames, within=late)
            if row < len(frames):
                raise VideoReadError(f"ends before row {row} of {len(frames)}, at {row / fps:.2f} s")
        except VideoReadError as error:
            raise DamagedEpisode(episode.index, self._name(file), str(error)) from error

    def _file(self, episode: EpisodeIndex, camera: str) -> Path:
        return self._folder / str(episode.index) / self.files[camera]

    def _name(self, file: Path) -> str:
        return str(file.relative_to(self._folder.parent))


def stream_of(file: Path) -> tuple[tuple[int, int], float]:
    """Gives a video's (height, width) and its frames per second; VideoReadError where it cannot be opened."""
    facts = video_facts(file)
    if isinstance(facts, str):
        raise VideoReadError(facts)
    if not facts.fps:
        raise VideoReadError("says no frame rate")
    return (facts.height, facts.width), facts.fps
