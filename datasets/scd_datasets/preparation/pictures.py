"""What a recording's pictures show before anything is learned: black, repeated, frozen ones; a moving camera.

L frames of an episode, V cameras, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from scd_datasets.sources.source import Finding, listed

BLACK = 16  # gray levels: no pixel of a black picture is lighter
SAME = 0.02  # gray levels, mean: a picture that differs less from the one before repeats it
MOVING = 6.0  # gray levels: above, most pixels change in an episode, since the camera itself moves
SPREAD_FRAMES = 32  # of an episode, from which the spread is taken
REPEATED_SHARE = 0.05  # of the pictures, above which a camera is said to repeat itself


@dataclass(frozen=True)
class EpisodePictures:
    """Measures one episode's pictures, camera by camera."""

    episode: int  # its index in the dataset
    length: int
    black: np.ndarray  # int (V,) pictures that are black
    repeated: np.ndarray  # int (V,) pictures that repeat the one before
    spread: np.ndarray  # float (V,) standard deviation over time of the median pixel, in gray levels

    @classmethod
    def of(cls, episode: int, pixels: np.ndarray) -> EpisodePictures:
        """Measures pixels uint8 (L, V, H, W, 3)."""
        black = (pixels.max(axis=(2, 3, 4)) <= BLACK).sum(0)
        repeated = np.zeros(pixels.shape[1], int)
        for one, following in pairwise(pixels):
            darker, lighter = np.minimum(one, following), np.maximum(one, following)
            repeated += (lighter - darker).mean(axis=(1, 2, 3)) < SAME
        picked = np.unique(np.linspace(0, len(pixels) - 1, SPREAD_FRAMES).astype(int))
        deviation = pixels[picked, :, ::2, ::2].std(0, dtype=np.float32)  # (V, H/2, W/2, 3)
        return cls(episode, len(pixels), black, repeated, np.median(deviation, axis=(1, 2, 3)))


@dataclass(frozen=True)
class CameraMeasures:
    """Measures what one camera saw in all episodes."""

    name: str
    black: float  # share of pictures
    repeated: float  # share of pictures
    spread: float  # gray levels
    black_episodes: list[int]  # those that are black from end to end
    frozen_episodes: list[int]  # those in which nothing ever changes

    @property
    def moves(self) -> bool:
        """Says whether the camera itself moves."""
        return self.spread > MOVING

    def __str__(self) -> str:
        kind = "moves" if self.moves else "stands still"
        return f"{kind}, {self.repeated:.0%} repeated, {self.black:.0%} black"


def camera_measures(cameras: Sequence[str], episodes: Sequence[EpisodePictures]) -> list[CameraMeasures]:
    """Sums the episodes up, camera by camera."""
    frames = max(1, sum(one.length for one in episodes))
    measured = []
    for i, name in enumerate(cameras):
        dark = [one.episode for one in episodes if one.black[i] == one.length]
        frozen = [one.episode for one in episodes if one.length > 1 and one.repeated[i] == one.length - 1]
        measured.append(
            CameraMeasures(
                name=name,
                black=sum(int(one.black[i]) for one in episodes) / frames,
                repeated=sum(int(one.repeated[i]) for one in episodes) / frames,
                spread=float(np.mean([one.spread[i] for one in episodes])) if episodes else 0.0,
                black_episodes=dark,
                frozen_episodes=[episode for episode in frozen if episode not in dark],
            )
        )
    return measured


def picture_findings(measured: Sequence[CameraMeasures]) -> list[Finding]:
    """Lists cameras that were dead for an episode, or that repeat pictures."""
    found = []
    for camera in measured:
        where = f"camera {camera.name}"
        for episodes, what in (
            (camera.black_episodes, "black"),
            (camera.frozen_episodes, "one still picture"),
        ):
            if episodes:
                text = f"{what} from end to end in {len(episodes)} episodes: {listed(episodes)}"
                found.append(Finding(text, where, "kept; drop them, or a world learns that cameras go dead"))
        if camera.repeated > REPEATED_SHARE and not camera.frozen_episodes and not camera.black_episodes:
            done = "kept; a camera slower than the rows: data.stride=2 or 3 reads fewer, and loses little"
            found.append(Finding(f"{camera.repeated:.0%} of its pictures repeat the one before", where, done))
    return found
