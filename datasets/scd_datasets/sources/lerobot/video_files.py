"""What shows of a dataset's files before anything is decoded: missing ones, pointers, sizes, rates, clocks.

L frames of an episode.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scd_datasets.sources.source import EpisodeIndex, Finding, VideoSpan, listed

ONE_BY_ONE = "data.clock=index takes them one by one"
POINTER = b"version https://git-lfs"
FEW = 0.02  # share of an episode's rows by which frames that are its rows differ from them at most
MORE = 0.5  # share of them by which frames that are not its rows are more
SAME = 0.01  # share by which rates differ that are the same
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


def frames_of(facts: VideoFacts | str | None, span: VideoSpan, fps: float) -> int | None:
    """Counts the frames that a video has for an episode, of `fps` rows a second; None: nobody knows."""
    if not isinstance(facts, VideoFacts):
        return None
    rate = facts.fps or fps
    if span.end is not None:
        return round((span.end - span.start) * rate)
    return facts.frames - round(span.start * rate) if facts.frames else None


def are_rows(frames: int | None, length: int) -> bool:
    """Says whether an episode's frames may well be its rows, one by one: there are about as many, or nobody
    knows how many."""
    return frames is None or abs(frames - length) <= max(1, FEW * length)


def too_short(facts: VideoFacts, span: VideoSpan, length: int, fps: float, in_order: bool) -> str | None:
    """Says that a video ends before the episode does, of `fps` rows a second.

    in_order: the frames are the rows, one by one; or they are found by their times.
    """
    rate, there = facts.fps or fps, length
    if facts.frames and in_order:
        there = facts.frames - round(span.start * rate)
    elif facts.frames:  # the last frame shows rows for half a step more
        there = math.floor(((facts.frames - 1) / rate - span.start) * fps + 0.5 + BESIDE) + 1
    if not in_order and span.end is not None:
        listed_rows = math.ceil((span.end - span.start) * fps)
        if are_more(length, listed_rows):  # and not by a few, as some recorders have it
            there = min(there, listed_rows)
    if there >= length:
        return None
    what = f"has {max(0, there)} of the episode's {length} frames"
    if not in_order and abs(rate / fps - 1) > SAME and are_rows(frames_of(facts, span, fps), length):
        what += f" by their times; there are as many as rows: {ONE_BY_ONE}"
    return what


def are_more(frames: int, length: int) -> bool:
    """Says whether frames are far too many to be an episode's rows, one by one."""
    return frames - length > max(2, MORE * length)


def runs_faster(facts: VideoFacts | str, span: VideoSpan, length: int, fps: float) -> bool:
    """Says whether a video runs at another rate than an episode's rows, and so has far more frames."""
    frames = frames_of(facts, span, fps)
    return (
        isinstance(facts, VideoFacts)
        and facts.fps > (1 + MORE) * fps
        and frames is not None
        and are_more(frames, length)
    )


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
            one, start = facts.get(span.file), span.start * fps
            rate = (isinstance(one, VideoFacts) and one.fps) or fps
            if (beside := abs(span.start * rate - round(span.start * rate))) > BESIDE:
                found[key, "begins beside a frame, by {} of one at most"][episode.index] = beside
            if span.end is not None and (more := abs((span.end - span.start) * fps - episode.length)) >= 0.5:
                found[key, "is listed with another length in the video, by {} frames at most"][
                    episode.index
                ] = more
            alone, frames = span.end is None, frames_of(one, span, fps)  # in a file of its own
            if alone and abs(rate / fps - 1) <= SAME and frames is not None and frames > episode.length:
                found[key, "has more frames in the video than rows, by {} at most"][episode.index] = (
                    frames - episode.length
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


def rate_findings(
    first: EpisodeIndex, facts: Mapping[str, VideoFacts], fps: float, in_order: bool
) -> list[Finding]:
    """Lists the cameras whose videos run at another rate than the rows.

    facts: of each camera's video of the first episode, by key. in_order: the frames are the rows, one by one,
    unless there are far more of them.
    """
    found = []
    for key, one in facts.items():
        frames = frames_of(one, first.videos[key], fps)
        if in_order and not runs_faster(one, first.videos[key], first.length, fps):
            continue
        if one.fps and abs(one.fps / fps - 1) > SAME:
            done = "frames are found by their times"
            if are_rows(frames, first.length):
                done += f"; {ONE_BY_ONE}"
            what = f"its videos run at {one.fps:.4g} frames per second, the dataset at {fps:g}"
            found.append(Finding(what, f"camera {key}", done))
    return found
