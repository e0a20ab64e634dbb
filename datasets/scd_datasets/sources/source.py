"""What a window store can be built from: recorded episodes, whatever layout they lie in on disk.

L steps of an episode, V cameras, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from scd_datasets.sources.images import ImageGrid
from scd_datasets.sources.lerobot_features import ENVIRONMENT_STATE, REWARD, STATE, SUCCESS


class DamagedEpisode(ValueError):
    """One episode that cannot be learned from; the message names file and episode."""

    def __init__(self, episode: int, file: str, what: str) -> None:
        super().__init__(f"episode {episode} ({file}): {what}")
        self.episode, self.file, self.what = episode, file, what


@dataclass(frozen=True)
class VideoSpan:
    file: str
    start: float  # seconds in the file


@dataclass(frozen=True)
class EpisodeIndex:
    """Where one episode lies."""

    index: int
    length: int
    tasks: tuple[str, ...]
    file: str  # of its numbers, relative to the dataset
    videos: dict[str, VideoSpan] = field(default_factory=dict)
    first: int = 0  # its first row, where one array holds all episodes


@dataclass(frozen=True)
class Finding:
    """Something to know before training: what, where, and what is done about it."""

    what: str
    where: str
    done: str


def require_fps(fps: int | None, root: str | Path, what: str) -> int:
    """The frame rate of a recording that stores none."""
    if fps is None:
        raise ValueError(f"{root} is {what}, and those store no frame rate: say data.fps=10 (PushT's own)")
    return fps


class Source(Protocol):
    """Recorded episodes under LeRobot's names, read one by one; a damaged one raises DamagedEpisode."""

    root: Path
    fps: int
    grid: ImageGrid
    sizes: Mapping[str, tuple[int, int]]  # camera → (height, width) as recorded, in the order of the frames
    episodes: list[EpisodeIndex]

    def names(self, key: str) -> tuple[str, ...]:
        """A name for each number of `key`; () where it is not recorded."""

    def low_dim(self, episode: EpisodeIndex) -> dict[str, np.ndarray]:
        """{key: (L, …)} as recorded."""

    def pixels(self, episode: EpisodeIndex) -> np.ndarray:
        """uint8 (L, V, H, W, 3) in the grid. Fastest in the order of `episodes`."""

    def findings(self) -> list[Finding]:
        """What is to be said of the recording as a whole."""

    def read_options(self) -> list[Any]:
        """What is read of it and how, as plain JSON: other choices ask for another store."""


class DropFeatures:
    """A source as it would be if some of its numbers had not been recorded."""

    def __init__(self, source: Source, ignored: Sequence[str]) -> None:
        """ignored: keys as LeRobot calls them; ValueError for one that is not there, or is not optional."""
        optional = [key for key in (STATE, ENVIRONMENT_STATE, REWARD, SUCCESS) if source.names(key)]
        if unknown := [key for key in ignored if key not in optional]:
            raise ValueError(
                f"data.drop_features={unknown}: {source.root} can be read without {', '.join(optional) or 'nothing'}"
            )
        self.source, self.ignored = source, sorted(ignored)

    def __getattr__(self, name: str) -> Any:
        if name == "source":  # not there yet: it is being copied
            raise AttributeError(name)
        return getattr(self.source, name)

    def names(self, key: str) -> tuple[str, ...]:
        return () if key in self.ignored else self.source.names(key)

    def low_dim(self, episode: EpisodeIndex) -> dict[str, np.ndarray]:
        return {key: v for key, v in self.source.low_dim(episode).items() if key not in self.ignored}

    def findings(self) -> list[Finding]:
        asked = [Finding("recorded", key, "ignored, as asked") for key in self.ignored]
        return self.source.findings() + asked

    def read_options(self) -> list[Any]:
        return [*self.source.read_options(), self.ignored]
