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
    return out[: video.nearest((first + np.arange(count)) / FPS, out, within=0.5 / FPS)]


@pytest.mark.parametrize("kind", VIDEOS)
def test_spans_in_any_order_show_their_own_frames(kind, file):
    """An episode that was left out must not shift the ones after it; nor may going back, even by a frame."""
    video = kind(file, SIZE)
    for first, count in ((0, 7), (7, 13), (25, 5), (29, 3), (30, 2), (45, 15), (3, 4), (4, 2), (0, COUNT)):
        assert shown(read(video, first, count)) == list(range(first, first + count))


@pytest.mark.parametrize("kind", VIDEOS)
def test_a_file_that_ends_early_gives_what_there_is(kind, file):
    video = kind(file, SIZE)
    assert shown(read(video, COUNT - 4, 9)) == list(range(COUNT - 4, COUNT))
    assert len(read(video, COUNT + 3, 2)) == 0
    assert shown(read(video, 10, 2)) == [10, 11]


@pytest.mark.parametrize("kind", VIDEOS)
def test_a_time_that_no_frame_is_near_to_ends_them(kind, file):
    out = np.zeros((5, *SIZE, 3), np.uint8)
    assert kind(file, SIZE).nearest(np.arange(5) / (2 * FPS), out, within=0.4 / (2 * FPS)) == 1
    assert kind(file, SIZE).nearest(np.array([0.0, np.nan, 0.2]), out[:3], within=1.0) == 1


@pytest.mark.parametrize("kind", VIDEOS)
def test_rows_of_any_rate_find_the_frames_nearest_to_their_times(kind, file):
    """Rows that come less often skip frames, rows that come more often repeat them; a time midway between two
    frames is near to both."""
    out = np.zeros((8, *SIZE, 3), np.uint8)
    for rate in (2.5, 4, 7, 25):
        times = 1.3 + np.arange(8) / rate
        assert kind(file, SIZE).nearest(times, out, within=0.51 / FPS) == 8
        assert (np.abs(np.array(shown(out)) / FPS - times) <= 0.5 / FPS + 1e-9).all()


@pytest.mark.parametrize("kind", VIDEOS)
@pytest.mark.parametrize("every", [1, 3])
def test_frames_in_order_are_steps_whatever_their_times_say(kind, file, every):
    """Each recording of a file begins with its own first frame, wherever the one before it ended."""
    video, out = kind(file, SIZE), np.zeros((5, *SIZE, 3), np.uint8)
    for first in (0, 5 * every, 12, 11):
        assert video.following(first / FPS, out, every) == 5
        assert shown(out) == list(range(first, first + 5 * every, every))
    assert video.following((COUNT - 2) / FPS, out) == 2


@pytest.mark.parametrize("kind", VIDEOS)
def test_frames_come_in_the_size_that_is_asked_for(kind, file):
    small = read(kind(file, (16, 24)), 20, 3, (16, 24))
    assert shown(small) == [20, 21, 22]
    assert np.abs(small[:, :, :10].astype(int) - (4 * np.arange(20, 23)[:, None, None, None] - 16)).max() <= 3


@pytest.mark.parametrize("kind", VIDEOS)
def test_damage_is_an_error_and_the_rest_stays_readable(kind, file, tmp_path):
    half = tmp_path / "half.mp4"
    half.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(VideoReadError):
        read(kind(half, SIZE), 0, 5)
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with pytest.raises(VideoReadError, match="cannot be opened"):
        kind(text, SIZE)


@pytest.mark.skipif(torchcodec_missing() is not None, reason="torchcodec does not load")
def test_both_decoders_show_the_same(file):
    for size in (SIZE, (16, 24)):
        a, b = (read(kind(file, size), 5, 20, size).astype(int) for kind in (PyAVReader, TorchcodecReader))
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


@pytest.mark.parametrize("kind", VIDEOS)
def test_frames_that_come_before_their_key_frame_are_found(kind, tmp_path):
    """Open groups of pictures, as x265 writes them: a search for one that precedes its key frame came to the
    key frame, and took that and what follows for it."""
    path = tmp_path / "open.mp4"
    groups = "keyint=12:min-keyint=12:bframes=3:open-gop=1:b-adapt=0:scenecut=0"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", FPS, options={"x264-params": groups, "crf": "1"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for i in range(COUNT):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((*SIZE, 3), 4 * i, np.uint8))))
        out.mux(stream.encode())
    taken = np.zeros((3, *SIZE, 3), np.uint8)
    for first in (9, 10, 11, 12, 21, 23, 35):
        assert shown(read(kind(path, SIZE), first, 3)) == [first, first + 1, first + 2]
        assert kind(path, SIZE).following(first / FPS, taken) == 3
        assert shown(taken) == [first, first + 1, first + 2]
