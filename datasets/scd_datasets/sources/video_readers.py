"""Video files read from front to back, each frame decoded once and resized while it is decoded.

By PyAV, which brings its own FFmpeg; torchcodec, which needs the system's, was never the faster one here, and
stays for who asks for it. Both resize bilinearly with anti-aliasing, as the image reader does.

H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import av
import av.filter
import numpy as np

DECODERS = ("auto", "torchcodec", "pyav")
# FFmpeg's quicker default darkens by two gray levels on the way from YUV.
EXACT = "flags=bilinear+accurate_rnd+full_chroma_int"
AHEAD = 1.0  # s that are decoded and dropped rather than searched: a seek decodes from a key frame too


class VideoReadError(ValueError):
    """Says that a file cannot be decoded, or not as far as was asked."""


class VideoReader(Protocol):
    """Reads an open file whose frames come in one size (H, W), `fps` of them a second.

    in_order: the frames are one step apart, whatever their times say.
    """

    def __init__(self, file: Path, fps: float, size: tuple[int, int], in_order: bool = False) -> None: ...

    def read(self, start: float, out: np.ndarray, every: int = 1) -> int:
        """Fills `out` uint8 (count, H, W, 3) with every n-th of the frames due from second `start` on; what
        was read before makes no difference.

        Gives how many there were: a frame that is half a step or more from its time ends them.
        """
        ...


class PyAVReader:
    """Decodes with PyAV, which brings its own FFmpeg: a `VideoReader`."""

    def __init__(self, file: Path, fps: float, size: tuple[int, int], in_order: bool = False) -> None:
        self._fps, self._size, self._in_order = fps, size, in_order
        self._scaler: av.filter.Graph | None = None  # made for the first frame
        self._frames: Iterator[av.VideoFrame] | None = None
        self._next: av.VideoFrame | None = None  # decoded, and not asked for yet
        self._passed = -math.inf  # s: the last frame that was given out or dropped
        try:
            self._container = av.open(str(file))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise VideoReadError(f"cannot be opened: {error}") from error
        if not self._container.streams.video:
            raise VideoReadError("no video in it")
        self._stream = self._container.streams.video[0]
        if self._stream.time_base is None:
            raise VideoReadError("its frames have no times")
        self._time_base = self._stream.time_base
        self._stream.codec_context.thread_count = 1  # episodes are decoded side by side, which costs less

    def read(self, start: float, out: np.ndarray, every: int = 1) -> int:
        half, seen, needed = 0.5 / self._fps, 0, (len(out) - 1) * every + 1
        try:
            self._go_to(start - half)
            while seen < needed and (frame := self._peek()) is not None:
                if not self._in_order and abs(frame.time - start - seen / self._fps) >= half:
                    break
                self._drop()
                if seen % every == 0:  # the others are decoded, for these build on them, and left as they are
                    out[seen // every] = self._image(frame)
                seen += 1
        except (av.FFmpegError, ValueError) as error:
            self._frames = None  # its position is not known now
            raise VideoReadError(f"frame {seen} cannot be decoded: {error}") from error
        return -(-seen // every)

    def _go_to(self, time: float) -> None:
        """Moves to the first frame from second `time` on: straight on where that frame is still to come."""
        frame = self._peek() if self._frames is not None else None
        if frame is None or self._passed >= time or frame.time < time - AHEAD:
            self._container.seek(max(0, int(time / self._time_base)), stream=self._stream)
            self._frames, self._next = self._container.decode(self._stream), None
            self._passed = -math.inf
        while (frame := self._peek()) is not None and frame.time < time:
            self._drop()

    def _drop(self) -> None:
        if self._next is not None:
            self._passed, self._next = self._next.time, None

    def _peek(self) -> av.VideoFrame | None:
        if self._next is None and self._frames is not None:
            self._next = next(self._frames, None)
        return self._next

    def _image(self, frame: av.VideoFrame) -> np.ndarray:
        """Gives uint8 (H, W, 3)."""
        if self._scaler is None:
            self._scaler = scaler(frame, self._size)
        self._scaler.push(frame)
        return self._scaler.pull().to_ndarray()


def scaler(frame: av.VideoFrame, size: tuple[int, int]) -> av.filter.Graph:
    """Makes the filter that turns frames like this one into RGB of `size`."""
    height, width = size
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        ),
        graph.add("scale", f"{width}:{height}:{EXACT}"),
        graph.add("format", "rgb24"),
        graph.add("buffersink"),
    ).configure()
    return graph


class TorchcodecReader:
    """Decodes with torchcodec, which needs the system's FFmpeg: a `VideoReader`."""

    def __init__(self, file: Path, fps: float, size: tuple[int, int], in_order: bool = False) -> None:
        from torchcodec.decoders import VideoDecoder
        from torchcodec.transforms import Resize

        self._fps, self._in_order = fps, in_order
        options = {"dimension_order": "NHWC", "num_ffmpeg_threads": 0}
        try:
            decoder = VideoDecoder(str(file), **options)
            if (decoder.metadata.height, decoder.metadata.width) != size:
                decoder = VideoDecoder(str(file), transforms=[Resize(size)], **options)
        except (RuntimeError, ValueError) as error:
            raise VideoReadError(f"cannot be opened: {error}") from error
        self._decoder = decoder

    def read(self, start: float, out: np.ndarray, every: int = 1) -> int:
        first = round(start * self._fps)
        last = min(first + (len(out) - 1) * every + 1, len(self._decoder))
        if first >= last:
            return 0
        try:
            frames = self._decoder.get_frames_in_range(first, last, every)
        except (RuntimeError, IndexError) as error:
            raise VideoReadError(
                f"some of the frames {first}…{last - 1} cannot be decoded: {error}"
            ) from error
        due = start + np.arange(0, last - first, every) / self._fps
        late = (np.abs(frames.pts_seconds.numpy() - due) >= 0.5 / self._fps) & (not self._in_order)
        count = int(np.argmax(late)) if late.any() else len(late)
        out[:count] = frames.data[:count].numpy()
        return count


def video_class(wanted: str) -> tuple[type[VideoReader], str]:
    """Gives the reader that `wanted` (one of DECODERS) means, and its name.

    Raises ValueError for an unknown one, and for torchcodec where it does not load.
    """
    if wanted not in DECODERS:
        raise ValueError(f"decoder={wanted!r}: expected one of {', '.join(DECODERS)}")
    if wanted != "torchcodec":
        return PyAVReader, "PyAV"
    if missing := torchcodec_missing():
        raise ValueError(
            f"decoder=torchcodec, but torchcodec does not load ({missing}): install FFmpeg's libraries "
            "(Debian, Ubuntu: apt install ffmpeg), or leave decoder at auto for PyAV"
        )
    return TorchcodecReader, "torchcodec"


@lru_cache(maxsize=1)
def torchcodec_missing() -> str | None:
    """Gives None where torchcodec loads, else why it does not, in a line."""
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        return str(error).strip().splitlines()[0].partition(". Likely")[0].rstrip(".")
    return None
