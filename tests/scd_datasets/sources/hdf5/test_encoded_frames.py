"""JPEG and PNG files in the rows of an array read as an array of pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from scd_datasets.sources.hdf5.encoded_frames import EncodedFrames, is_encoded

FRAMES = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.full((16, 24, 3), 40, np.uint8)


def encoded(frame: np.ndarray, kind: str = "PNG") -> np.ndarray:
    Image.fromarray(frame).save(file := io.BytesIO(), kind)
    return np.frombuffer(file.getvalue(), np.uint8)


def padded(rows: list[np.ndarray]) -> np.ndarray:
    longest = max(map(len, rows)) + 3
    return np.stack([np.pad(row, (0, longest - len(row))) for row in rows])


def test_padded_rows_are_pictures_and_other_bytes_are_not():
    rows = padded([encoded(frame) for frame in FRAMES])
    assert is_encoded(rows)
    assert is_encoded(padded([encoded(frame, "JPEG") for frame in FRAMES]))
    assert is_encoded(np.array([encoded(frame).tobytes() for frame in FRAMES]))
    frames = EncodedFrames(rows)
    assert frames.shape == FRAMES.shape
    assert np.array_equal(frames[1:4], FRAMES[1:4])
    assert np.array_equal(frames[2], FRAMES[2])
    assert frames[4:4].shape == (0, 16, 24, 3)
    for other in (
        np.zeros((5, 9), np.uint8),
        np.zeros((0, 9), np.uint8),
        FRAMES,
        np.array(["ab"]),
        np.array(b""),
    ):
        assert not is_encoded(other)


def test_broken_and_larger_pictures_are_named():
    rows = padded([encoded(frame) for frame in (*FRAMES, np.zeros((32, 24, 3), np.uint8))])
    with pytest.raises(ValueError, match=r"one frame is \(32, 24, 3\), the first one \(16, 24, 3\)"):
        EncodedFrames(rows)[0:6]
    rows[3, 50:] = 0
    with pytest.raises(ValueError, match="a picture in it cannot be decoded"):
        EncodedFrames(rows)[0:5]


def test_what_is_no_picture_is_told_without_an_address_in_memory():
    rows = padded([encoded(frame) for frame in FRAMES])
    rows[3, :8] = 0
    with pytest.raises(ValueError, match=r"cannot be decoded: it is no picture in a known format \(PNG"):
        EncodedFrames(rows)[3]
