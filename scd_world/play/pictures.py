"""Frames as PNG: small, lossless, and what a browser shows as it is."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

FAST = 1  # zlib's level: a frame of 96 × 96 takes a millisecond


def to_png(image: np.ndarray) -> bytes:
    """Encodes an image, uint8 (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=FAST)
    return buffer.getvalue()


def from_png(png: bytes) -> np.ndarray:
    """Decodes what `to_png` encoded, to the bit: uint8 (H, W, 3)."""
    with Image.open(io.BytesIO(png)) as image:
        return np.array(image)
