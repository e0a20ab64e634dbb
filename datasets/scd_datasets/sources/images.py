"""Images of any size onto one grid: stretched, or letterboxed in their own proportions.

L frames, V cameras, H W pixels of the grid, h w of a camera's region in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from scd_world.robot_data.schema import ImageRegion, view_of

MULTIPLE = 16  # a resized longer side is a multiple of this, so that a patch of 8 or 16 fits any camera
LARGEST, USUAL = 160, 96  # pixels: by default a shorter side beyond the first is resized to the second


@dataclass(frozen=True)
class ImageGrid:
    """The one size that the images of all cameras are brought to."""

    height: int
    width: int
    letterbox: bool = False  # keep proportions and fill up with black; else stretch

    @classmethod
    def common(
        cls,
        sizes: Mapping[str, tuple[int, int]],
        shorter: int | None,
        letterbox: bool = False,
        multiple: int = MULTIPLE,
    ) -> ImageGrid:
        """Makes the grid for cameras of these (height, width), as `common_size` finds it."""
        return cls(*common_size(list(sizes.values()), shorter, multiple), letterbox)

    @property
    def resize(self) -> str:
        return "letterbox" if self.letterbox else "stretch"

    def views(self, sizes: Mapping[str, tuple[int, int]]) -> dict[str, ImageRegion]:
        """Gives camera → where its image lies in the grid, from camera → (height, width) as recorded."""
        frame = self.height, self.width
        return {camera: view_of(size, frame, self.letterbox) for camera, size in sizes.items()}

    def canvas(self, length: int, cameras: int) -> np.ndarray:
        """Makes black frames uint8 (length, V, H, W, 3)."""
        return np.zeros((length, cameras, self.height, self.width, 3), np.uint8)


def common_size(
    sizes: list[tuple[int, int]], shorter: int | None, multiple: int = MULTIPLE
) -> tuple[int, int]:
    """Gives (H, W) that all cameras are resized to: the smallest one's, or `shorter` for the shorter side.

    Without `shorter`, images that are too large to learn from come in the usual size. The longer side of a
    resized image is a multiple of `multiple`. (0, 0) where there is no camera.
    """
    if not sizes:
        return 0, 0
    height, width = min(sizes, key=lambda size: size[0] * size[1])
    if shorter is None:
        if min(height, width) <= LARGEST:
            return height, width
        shorter = USUAL
    scale = shorter / min(height, width)
    longer = max(shorter, round(max(height, width) * scale / multiple) * multiple)
    return (shorter, longer) if height <= width else (longer, shorter)


def region_of(frames: np.ndarray, camera: int, view: ImageRegion) -> np.ndarray:
    """Gives a camera's region (L, h, w, 3) of frames (L, V, H, W, 3), to be written into."""
    rows, columns = slice(view.top, view.top + view.height), slice(view.left, view.left + view.width)
    return frames[:, camera, rows, columns]


def resize(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Resizes to uint8 (*size, 3), bilinearly with anti-aliasing."""
    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)


def resize_into(frames: np.ndarray, images: np.ndarray) -> None:
    """Writes images (L, h', w', 3), in whatever size they were recorded, into frames (L, h, w, 3)."""
    size = frames.shape[1:3]
    if images.shape[1:3] == size:
        frames[:] = images
        return
    for row, image in zip(frames, images, strict=True):
        row[:] = resize(Image.fromarray(image), size)
