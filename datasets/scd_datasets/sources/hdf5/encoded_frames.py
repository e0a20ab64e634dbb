"""Frames that lie in the rows of an array as JPEG or PNG files, read as if they were an array of pixels.

L frames, h w pixels of a frame.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from scd_datasets.sources.picture_files import open_image

BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG")  # of a JPEG's and a PNG's bytes
ROWS = (("u", 2), ("S", 1), ("O", 1))  # dtype.kind and axes: padded rows, bytes, rows of different lengths


class EncodedFrames:
    """Looks like an array uint8 (L, h, w, 3); rows may be padded to one length with zeros.

    All frames have the size of the first one; reading another one raises ValueError.
    """

    dtype, chunks = np.dtype(np.uint8), None

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        self.shape = (rows.shape[0], *decode(rows[0]).shape)

    def __getitem__(self, which: int | slice) -> np.ndarray:
        if isinstance(which, int):
            return decode(self._rows[which])
        frames = [decode(row) for row in self._rows[which]]
        for frame in frames:
            if frame.shape != self.shape[1:]:
                raise ValueError(f"one frame is {frame.shape}, the first one {self.shape[1:]}")
        return np.stack(frames) if frames else np.empty((0, *self.shape[1:]), np.uint8)


def is_encoded(array: Any) -> bool:
    """Says whether an array's rows begin as a JPEG or a PNG does."""
    if not array.shape or not array.shape[0] or (array.dtype.kind, array.ndim) not in ROWS:
        return False
    first = array[0]
    plain = isinstance(first, bytes) or (isinstance(first, np.ndarray) and first.dtype == np.uint8)
    return plain and bytes(first[:4]).startswith(BEGINNINGS)


def decode(row: Any) -> np.ndarray:
    """Decodes a row to RGB uint8 (h, w, 3); ValueError where it is broken."""
    try:
        return np.asarray(open_image(io.BytesIO(bytes(row))).convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"a picture in it cannot be decoded: {error}") from error
