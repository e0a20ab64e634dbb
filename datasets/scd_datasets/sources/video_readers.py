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
from typing import Any, Protocol

import av
import av.filter
import numpy as np

DECODERS = ("auto", "torchcodec", "pyav")
# FFmpeg's quicker default darkens by two gray levels on the way from YUV.
EXACT = "flags=bilinear+accurate_rnd+full_chroma_int"
LATE = 0.51  # of a step: a frame that is further from a time does not show what was then
AHEAD = 1.0  # s that are decoded and dropped rather than searched: a seek decodes from a key frame too


class VideoReadError(ValueError):
    """Says that a file cannot be decoded, or not as far as was asked."""


class VideoReader(Protocol):
    """Reads an open file whose frames come in one size (H, W)."""

    def __init__(self, file: Path, size: tuple[int, int]) -> None: ...

    def nearest(self, times: np.ndarray, out: np.ndarray, within: float) -> int:
        """Fills `out` uint8 (n, H, W, 3) with the frames nearest to `times` (n,), ascending, in s; what was
        read before makes no difference.

        Gives how many there were: a time from which every frame is more than `within` s ends them.
        """
        ...

    def following(self, start: float, out: np.ndarray, every: int = 1) -> int:
        """Fills `out` uint8 (n, H, W, 3) with every n-th frame from the one nearest to second `start` on,
        whatever their times say. Gives how many there were."""
        ...


class PyAVReader:
    """Decodes with PyAV, which brings its own FFmpeg: a `VideoReader`."""

    def __init__(self, file: Path, size: tuple[int, int]) -> None:
        self._size = size
        self._scaler: av.filter.Graph | None = None  # made for the first frame
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._now: av.VideoFrame | None = None  # None: nobody knows where the file stands
        self._next: av.VideoFrame | None = None  # decoded ahead
        self._passed = -math.inf  # s: the frame before `_now`
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

    def nearest(self, times: np.ndarray, out: np.ndarray, within: float) -> int:
        def frames() -> Iterator[av.VideoFrame]:
            for time in times.tolist():
                frame = self._go_to(time)
                if frame is None or not abs(frame.time - time) <= within:
                    return
                yield frame

        return self._fill(out, frames())

    def following(self, start: float, out: np.ndarray, every: int = 1) -> int:
        def frames() -> Iterator[av.VideoFrame]:
            frame = self._go_to(start)
            while frame is not None:
                yield frame
                for _ in range(every):  # those between are decoded, for others build on them, and left so
                    frame = self._step()

        return self._fill(out, frames())

    def _fill(self, out: np.ndarray, frames: Iterator[av.VideoFrame]) -> int:
        count = 0
        try:
            for image, frame in zip(out, frames, strict=False):
                image[:] = self._image(frame)
                count += 1
        except (av.FFmpegError, ValueError) as error:
            self._now = None
            raise VideoReadError(f"after {count} of {len(out)} frames: {error}") from error
        return count

    def _go_to(self, time: float) -> av.VideoFrame | None:
        """Moves to the frame nearest to second `time`, the earlier one of two: straight on where that frame
        is still to come."""
        now = self._now
        if now is None or abs(self._passed - time) <= abs(now.time - time) or now.time < time - AHEAD:
            now = self._seek(time)
        while now and (after := self._peek()) and abs(after.time - time) < abs(now.time - time):
            now = self._step()
        return now

    def _seek(self, time: float) -> av.VideoFrame | None:
        """Moves to a frame at second `time` or before it; where a key frame's own followers come before it,
        to an earlier key frame."""
        before = 0.0
        while True:
            place = max(0, int((time - before) / self._time_base))
            self._container.seek(place, stream=self._stream)
            self._frames = self._container.decode(self._stream)
            self._now, self._next, self._passed = None, None, -math.inf
            if (now := self._step()) is None or not place:
                return now
            if now.time <= time:  # there may be frames before the one it came to
                self._passed = math.nextafter(now.time, -math.inf)
                return now
            before = 2 * before + AHEAD

    def _step(self) -> av.VideoFrame | None:
        """Moves on by a frame; None, where there is none."""
        if (after := self._peek()) is None:
            return None
        if self._now is not None:
            self._passed = self._now.time
        self._now, self._next = after, None
        return after

    def _peek(self) -> av.VideoFrame | None:
        if self._next is None:
            self._next = next(self._frames, None)
            if self._next is not None and self._next.time is None:
                raise VideoReadError("its frames have no times")
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

    def __init__(self, file: Path, size: tuple[int, int]) -> None:
        from torchcodec.decoders import VideoDecoder
        from torchcodec.transforms import Resize

        options = {"dimension_order": "NHWC", "num_ffmpeg_threads": 0}
        try:
            decoder = VideoDecoder(str(file), **options)
            if (decoder.metadata.height, decoder.metadata.width) != size:
                decoder = VideoDecoder(str(file), transforms=[Resize(size)], **options)
        except (RuntimeError, ValueError) as error:
            raise VideoReadError(f"cannot be opened: {error}") from error
        self._decoder, self._fps = decoder, decoder.metadata.average_fps
        self._begins = decoder.metadata.begin_stream_seconds or 0.0
        if not self._fps:
            raise VideoReadError("says no frame rate")

    def nearest(self, times: np.ndarray, out: np.ndarray, within: float) -> int:
        frames = self._get(self._index(times), out)
        if frames is None:
            return 0
        late = ~(np.abs(frames.pts_seconds.numpy() - times) <= within)
        count = int(np.argmax(late)) if late.any() else len(late)
        out[:count] = frames.data[:count].numpy()
        return count

    def following(self, start: float, out: np.ndarray, every: int = 1) -> int:
        indices = self._index(np.array([start])) + every * np.arange(len(out))
        indices = indices[indices < len(self._decoder)]
        if (frames := self._get(indices, out)) is None:
            return 0
        out[: len(indices)] = frames.data.numpy()
        return len(indices)

    def _index(self, times: np.ndarray) -> np.ndarray:
        nearest = np.round((np.nan_to_num(times) - self._begins) * self._fps).astype(int)
        return np.clip(nearest, 0, len(self._decoder) - 1)

    def _get(self, indices: np.ndarray, out: np.ndarray) -> Any:
        if not len(indices) or not len(out):
            return None
        try:
            return self._decoder.get_frames_at(indices.tolist())
        except (RuntimeError, IndexError) as error:
            what = f"some of the frames {indices[0]}…{indices[-1]} cannot be decoded"
            raise VideoReadError(f"{what}: {error}") from error


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
