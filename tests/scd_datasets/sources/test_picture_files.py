"""Pictures in files open as a camera's formats alone."""

import io

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from scd_datasets.sources import picture_files
from scd_datasets.sources.picture_files import FORMATS, open_image


def encoded(kind: str) -> io.BytesIO:
    Image.fromarray(np.full((8, 12, 3), 90, np.uint8)).save(file := io.BytesIO(), kind)
    return io.BytesIO(file.getvalue())


@pytest.mark.parametrize("kind", FORMATS)
def test_a_cameras_formats_open(kind):
    image = open_image(encoded(kind))
    assert (image.format, image.size) == (kind, (12, 8))


@pytest.mark.parametrize("kind", ["EPS", "PDF", "GIF"])
def test_another_format_is_handed_to_nobody(kind, monkeypatch):
    """An EPS would be drawn by Ghostscript."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("was run"))
    with pytest.raises(ValueError, match=r"^it is no picture in a known format \(PNG, JPEG, .*BMP\)$"):
        open_image(encoded(kind))


def test_one_that_is_too_large_is_not_decoded(monkeypatch):
    monkeypatch.setattr(picture_files, "LARGEST_IMAGE", 95)
    with pytest.raises(ValueError, match="it has 12 × 8 pixels, more than 95"):
        open_image(encoded("PNG"))
