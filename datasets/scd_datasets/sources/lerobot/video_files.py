"""What shows of a dataset's files before anything is decoded: missing ones, pointers, sizes, rates, clocks.

L frames of an episode.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scd_datasets.sources.source import EpisodeIndex, Finding, VideoSpan, listed

POINTER = b"version https://git-lfs"
BESIDE = 0.1  # of a frame: an episode that begins further beside one was cut by another clock


@dataclass(frozen=True)
class VideoFacts:
    """Holds what a video's header says."""

    height: int
    width: int
    frames: int  # 0 where it does not say
    fps: float  # 0 where it does not say
    pixel_format: str

    @property
    def is_depth(self) -> bool:
        """Says whether it holds one channel of more than 8 bits: depth, as LeRobot encodes it."""
        return self.pixel_format.startswith("gray") and self.pixel_format not in ("gray", "gray8")


def file_fault(file: Path) -> str | None:
    """Says why a file cannot be read, as far as that shows from outside; None where it may well be."""
    if not file.is_file():
        return "there is no such file"
    with file.open("rb") as opened:
        start = opened.read(len(POINTER))
    if not start:
        return "is empty"
    if start == POINTER:
        return "is a Git LFS pointer, not the file itself: fetch it by `git lfs pull` in the dataset's folder"
    return None


def video_facts(file: Path) -> VideoFacts | str:
    """Reads a video's header; a text says why it cannot be opened."""
    if fault := file_fault(file):
        return fault
    import av

    try:
        container = av.open(str(file))
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = (
            getattr(error, "strerror", None) or error
        )  # without the path, which every episode has its own of
        return f"cannot be opened as a video: {reason}"
    try:
        stream = next(iter(container.streams.video), None)
        if stream is None:
            return "has no video in it"
        rate = float(stream.average_rate or 0)
        return VideoFacts(stream.height, stream.width, stream.frames, rate, stream.pix_fmt or "")
    finally:
        container.close()


def too_short(facts: VideoFacts, span: VideoSpan, length: int, fps: float) -> str | None:
    """Says that a video ends before the episode does."""
    first = round(span.start * fps)
    if facts.frames and facts.frames < first + length:
        return f"has {max(0, facts.frames - first)} of the episode's {length} frames"
    return None


def other_size(facts: VideoFacts, size: tuple[int, int]) -> str | None:
    """Says that a video's frames have another size (height, width) than the camera's others."""
    if (facts.height, facts.width) == size:
        return None
    return f"has frames of {facts.height} × {facts.width} pixels, the others {size[0]} × {size[1]}"


def span_findings(
    episodes: Sequence[EpisodeIndex], fps: float, facts: Mapping[str, VideoFacts | str]
) -> list[Finding]:
    """Lists where the list of episodes and the videos' frames do not agree, in numbers of frames.

    facts: of those files that were looked at.
    """
    found: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    ends: dict[str, float] = {}
    for episode in episodes:
        for key, span in episode.videos.items():
            start = span.start * fps
            if (beside := abs(start - round(start))) > BESIDE:
                found[key, "begins beside a frame, by {} of one at most"][episode.index] = beside
            if span.end is not None and (more := abs((span.end - span.start) * fps - episode.length)) >= 0.5:
                found[key, "is listed with another length in the video, by {} frames at most"][
                    episode.index
                ] = more
            one, alone = facts.get(span.file), span.end is None  # in a file of its own
            if alone and isinstance(one, VideoFacts) and one.frames > episode.length:
                found[key, "has more frames in the video than rows, by {} at most"][episode.index] = (
                    one.frames - episode.length
                )
            if (shared := ends.get(span.file, start) - start) >= 0.5:
                found[key, "shares frames with the one before it in the video, {} at most"][episode.index] = (
                    shared
                )
            ends[span.file] = start + episode.length
    return [
        Finding(
            f"{len(which)} of {len(episodes)} episodes: each {what.format(_number(max(which.values())))}",
            f"camera {key}, episode {listed(list(which))}",
            "read from the nearest frame on",
        )
        for (key, what), which in found.items()
    ]


def _number(frames: float) -> str:
    return f"{frames:.1f}".rstrip("0").rstrip(".")


def rate_findings(facts: Mapping[str, VideoFacts], fps: float) -> list[Finding]:
    """Lists the cameras, by key, whose videos run at another rate than the dataset."""
    return [
        Finding(
            f"its videos run at {one.fps:.4g} frames per second, the dataset at {fps:g}",
            f"camera {key}",
            done,
        )
        for key, one in facts.items()
        if one.fps and abs(one.fps / fps - 1) > 0.01
        for done in ["frames are found by their times; data.clock=index takes them one by one"]
    ]
