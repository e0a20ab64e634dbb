"""What a window store is built from: recorded episodes, whatever layout they have on disk.

L steps of an episode, V cameras, H W pixels of the grid.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from scd_datasets.sources.images import ImageGrid
from scd_datasets.sources.lerobot.features import ENVIRONMENT_STATE, REWARD, STATE, SUCCESS


class DamagedEpisode(ValueError):
    """Says that an episode cannot be learned from; the message names file and episode."""

    def __init__(self, episode: int, file: str, what: str) -> None:
        super().__init__(f"episode {episode} ({file}): {what}")
        self.episode, self.file, self.what = episode, file, what


@dataclass(frozen=True)
class VideoSpan:
    """Says where an episode begins in a video file."""

    file: str
    start: float  # seconds in the file
    end: float | None = None  # where the dataset says so


@dataclass(frozen=True)
class EpisodeIndex:
    """Says where one episode lies."""

    index: int
    length: int
    tasks: tuple[str, ...]
    file: str  # of its low-dimensional data, relative to the dataset
    videos: dict[str, VideoSpan] = field(default_factory=dict)
    first: int = 0  # its first row, where one array holds all episodes

    def of_cameras(self, keys: Collection[str]) -> EpisodeIndex:
        """Gives the episode with the videos of these cameras alone."""
        return replace(self, videos={key: span for key, span in self.videos.items() if key in keys})


@dataclass(frozen=True)
class Finding:
    """Notes something to know before training: what, where, and what is done about it."""

    what: str
    where: str
    done: str
    notable: bool = True  # False: as it is with every such recording, nothing to look into


LISTED = 8  # of many things that a line names


def listed(things: Sequence[object]) -> str:
    """Names the first few things in a line."""
    return ", ".join(map(str, things[:LISTED])) + (", …" if len(things) > LISTED else "")


def every_nth(length: int, every: int) -> int:
    """Counts every n-th of so many frames, the first one among them."""
    return len(range(0, length, every))


def require_fps(fps: float | None, root: str | Path, what: str, usual: str) -> float:
    """Gives the frame rate of a recording that stores none; ValueError where the user gave none either.

    usual: the rates that such recordings have, as they are to be given.
    """
    if fps is None:
        raise ValueError(f"{root} is {what}, and those store no frame rate: give {usual}")
    return fps


class Source(Protocol):
    """Reads recorded episodes one by one, under LeRobot's names; a damaged one raises DamagedEpisode.

    ## Attributes
    `root`: folder or file. `fps`: frames per second. `grid`: the one (H, W) that all cameras come in.
    `sizes`: camera → (height, width) as recorded, in the order of the frames. `camera_keys`: LeRobot's key of
    each of them; () in a layout that has none. `episodes`: where each lies. `in_order`: a row is a step,
    whatever the timestamps say. `imagined`: by whom, in plain words; None where it was recorded.
    """

    root: Path
    fps: float
    grid: ImageGrid
    episodes: list[EpisodeIndex]
    in_order: bool

    @property
    def sizes(self) -> Mapping[str, tuple[int, int]]: ...

    @property
    def camera_keys(self) -> tuple[str, ...]: ...

    @property
    def imagined(self) -> str | None: ...

    def names(self, key: str) -> tuple[str, ...]:
        """Gives a name for each dimension of `key` (LeRobot's, such as `observation.state`); () where it is
        not recorded."""
        ...

    def check_files(self, episode: EpisodeIndex) -> None:
        """Raises DamagedEpisode where a file of the episode is not there or cannot be what it should be, as
        far as that shows without decoding it."""
        ...

    def low_dim(self, episode: EpisodeIndex) -> dict[str, np.ndarray]:
        """Reads {key: (L, …)} as recorded, in raw units: all but images."""
        ...

    def pixels(self, episode: EpisodeIndex, every: int = 1) -> np.ndarray:
        """Decodes every n-th frame to uint8 (⌈L/n⌉, V, H, W, 3) in the grid; several threads may ask at a
        time. Fastest in the order of `episodes`."""
        ...

    def findings(self) -> list[Finding]:
        """Lists what a user should know of the recording as a whole."""
        ...

    def read_options(self) -> list[Any]:
        """Gives what is read of it and how, as plain JSON: other options ask for another store."""
        ...


class DropFeatures:
    """Reads a source as if some of its features had not been recorded: a `Source`."""

    def __init__(self, source: Source, dropped: Sequence[str]) -> None:
        """dropped: keys as LeRobot calls them; ValueError for one that is not recorded or not optional."""
        optional = [key for key in (STATE, ENVIRONMENT_STATE, REWARD, SUCCESS) if source.names(key)]
        if unknown := [key for key in dropped if key not in optional]:
            known = ", ".join(optional) or "nothing"
            raise ValueError(f"data.drop_features={unknown}: {source.root} can be read without {known}")
        self.source, self.dropped = source, sorted(dropped)

    def __getattr__(self, name: str) -> Any:
        if name == "source":  # not set yet: it is being copied
            raise AttributeError(name)
        return getattr(self.source, name)

    def names(self, key: str) -> tuple[str, ...]:
        return () if key in self.dropped else self.source.names(key)

    def low_dim(self, episode: EpisodeIndex) -> dict[str, np.ndarray]:
        return {key: v for key, v in self.source.low_dim(episode).items() if key not in self.dropped}

    def findings(self) -> list[Finding]:
        asked = [Finding("recorded", key, "ignored, as asked") for key in self.dropped]
        return self.source.findings() + asked

    def read_options(self) -> list[Any]:
        return [*self.source.read_options(), self.dropped]
