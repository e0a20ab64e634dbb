"""Video frames by their times, in whatever order they are asked for, and the same by both decoders."""

import sys

import av
import numpy as np
import pytest

from scd_datasets.sources.video_readers import (
    PyAVReader,
    TorchcodecReader,
    VideoReadError,
    torchcodec_missing,
    video_class,
)

FPS, COUNT, SIZE = 10, 60, (32, 48)
VIDEOS = [
    PyAVReader,
    pytest.param(
        TorchcodecReader,
        marks=pytest.mark.skipif(torchcodec_missing() is not None, reason=f"{torchcodec_missing()}"),
    ),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Frame i is as bright as 4·i, its left half darker by 16; a key frame every 12."""
    path = tmp_path_factory.mktemp("video") / "numbered.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", FPS, options={"g": "12", "crf": "1", "bf": "2"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for i in range(COUNT):
            image = np.full((*SIZE, 3), 4 * i, np.uint8)
            image[:, : SIZE[1] // 2] = max(4 * i - 16, 0)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        out.mux(stream.encode())
    return path


def shown(frames):
    """The frames' indices, off their brighter half."""
    return np.round(frames[:, :, -8:].mean((1, 2, 3)) / 4).astype(int).tolist()


def read(video, first, count, size=SIZE):
    out = np.zeros((count, *size, 3), np.uint8)
    return out[: video.read(first / FPS, out)]


@pytest.mark.parametrize("kind", VIDEOS)
def test_spans_in_any_order_show_their_own_frames(kind, file):
    """An episode that was left out must not shift the ones after it; nor may going back, even by a frame."""
    video = kind(file, FPS, SIZE)
    for first, count in ((0, 7), (7, 13), (25, 5), (29, 3), (30, 2), (45, 15), (3, 4), (4, 2), (0, COUNT)):
        assert shown(read(video, first, count)) == list(range(first, first + count))


@pytest.mark.parametrize("kind", VIDEOS)
def test_a_file_that_ends_early_gives_what_there_is(kind, file):
    video = kind(file, FPS, SIZE)
    assert shown(read(video, COUNT - 4, 9)) == list(range(COUNT - 4, COUNT))
    assert len(read(video, COUNT + 3, 2)) == 0
    assert shown(read(video, 10, 2)) == [10, 11]


@pytest.mark.parametrize("kind", VIDEOS)
def test_a_frame_that_is_half_a_step_late_ends_them(kind, file):
    video = kind(file, 2 * FPS, SIZE)  # the file's frames come half as often
    assert len(read(video, 0, 5)) == 1


@pytest.mark.parametrize("kind", VIDEOS)
def test_frames_in_order_are_steps_whatever_their_times_say(kind, file):
    """A robot's real clock: the file's frames come half as often as the rows say."""
    video = kind(file, 2 * FPS, SIZE, in_order=True)
    out = np.zeros((5, *SIZE, 3), np.uint8)
    assert video.read(0.0, out) == 5
    assert shown(out) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", VIDEOS)
def test_frames_come_in_the_size_that_is_asked_for(kind, file):
    small = read(kind(file, FPS, (16, 24)), 20, 3, (16, 24))
    assert shown(small) == [20, 21, 22]
    assert np.abs(small[:, :, :10].astype(int) - (4 * np.arange(20, 23)[:, None, None, None] - 16)).max() <= 3


@pytest.mark.parametrize("kind", VIDEOS)
def test_damage_is_an_error_and_the_rest_stays_readable(kind, file, tmp_path):
    half = tmp_path / "half.mp4"
    half.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(VideoReadError):
        read(kind(half, FPS, SIZE), 0, 5)
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with pytest.raises(VideoReadError, match="cannot be opened"):
        kind(text, FPS, SIZE)


@pytest.mark.skipif(torchcodec_missing() is not None, reason="torchcodec does not load")
def test_both_decoders_show_the_same(file):
    for size in (SIZE, (16, 24)):
        a, b = (
            read(kind(file, FPS, size), 5, 20, size).astype(int) for kind in (PyAVReader, TorchcodecReader)
        )
        assert np.abs(a - b).max() <= 3


def test_pyav_is_taken_and_torchcodec_where_it_is_asked_for(monkeypatch):
    torchcodec_missing.cache_clear()
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    try:
        assert video_class("auto") == (PyAVReader, "PyAV")
        with pytest.raises(ValueError, match=r"torchcodec does not load .* install FFmpeg's libraries"):
            video_class("torchcodec")
    finally:
        torchcodec_missing.cache_clear()
