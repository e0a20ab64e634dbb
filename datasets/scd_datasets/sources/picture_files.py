"""Pictures as files hold them, opened as a camera's formats alone.

PIL opens what it can: an EPS it hands to Ghostscript, a program, and a recording may come from anywhere.
"""

from __future__ import annotations

import io

from PIL import Image, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
LARGEST_IMAGE = 64_000_000  # pixels; a PNG of a few kilobytes can ask for gigabytes


def open_image(encoded: io.BytesIO) -> Image.Image:
    """Opens an image without decoding it; ValueError for one that no camera takes."""
    try:
        image = Image.open(encoded, formats=FORMATS)
    except UnidentifiedImageError as error:  # whose own words name an object in memory
        raise ValueError(f"it is no picture in a known format ({', '.join(FORMATS)})") from error
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error
    if image.width * image.height > LARGEST_IMAGE:
        raise ValueError(f"it has {image.width} × {image.height} pixels, more than {LARGEST_IMAGE:,}")
    return image
