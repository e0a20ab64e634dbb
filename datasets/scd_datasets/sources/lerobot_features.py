"""LeRobot's names for what is recorded: keys, cameras, image sizes, and a name for every dimension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

IMAGE, IMAGES = "observation.image", "observation.images."
STATE, ENVIRONMENT_STATE = "observation.state", "observation.environment_state"
ACTION, REWARD, SUCCESS, DONE = "action", "next.reward", "next.success", "next.done"
MULTIPLE = 16  # a resized longer side is a multiple of this, so that a patch of 8 or 16 fits any camera
LARGEST, USUAL = 160, 96  # pixels: by default a shorter side beyond the first is resized to the second


def vector_feature(names: list[str]) -> dict[str, Any]:
    """Gives LeRobot's feature of a float32 vector with these names."""
    return {"dtype": "float32", "shape": (len(names),), "names": names}


def camera_feature(image: np.ndarray, videos: bool) -> dict[str, Any]:
    """Gives LeRobot's feature of a camera with such images uint8 (H, W, 3)."""
    names = ["height", "width", "channels"]
    return {"dtype": "video" if videos else "image", "shape": image.shape, "names": names}


def dim_names(key: str, feature: dict[str, Any]) -> tuple[str, ...]:
    """Gives a name for each dimension of a feature, the dataset's own where it has them."""
    count = int(np.prod(feature["shape"]))
    names = feature.get("names")
    if isinstance(names, dict):  # {"motors": ["shoulder", …]} or {"shoulder": 0, …}
        groups = [value if isinstance(value, list) else [name] for name, value in names.items()]
        names = [name for group in groups for name in group]
    if not names or len(names) != count:
        names = [f"{key.rsplit('.', 1)[-1]}_{i}" for i in range(count)]
    return tuple(map(str, names))


def camera_keys(features: dict[str, dict[str, Any]], wanted: Sequence[str]) -> dict[str, str]:
    """Gives short name → feature key of the RGB cameras, in the dataset's order or the wanted one; may be
    empty."""
    found = {
        "image" if key == IMAGE else key.removeprefix(IMAGES): key
        for key, feature in features.items()
        if feature["dtype"] in ("image", "video") and not _is_depth(feature)
    }
    return wanted_of(found, wanted)


def wanted_of[T](found: Mapping[str, T], wanted: Sequence[str]) -> dict[str, T]:
    """Gives the cameras that are wanted, in that order; all where none is named. ValueError for an unknown
    one."""
    if unknown := sorted(set(wanted) - set(found)):
        known = ", ".join(found) or "none"
        raise ValueError(f"no camera called {', '.join(unknown)}; the dataset has {known}")
    return {name: found[name] for name in wanted or found}


def _is_depth(feature: dict[str, Any]) -> bool:
    flags = (feature.get("info") or {}) | (feature.get("video_info") or {})
    return bool(flags.get("is_depth_map") or flags.get("video.is_depth_map"))


def camera_size(feature: dict[str, Any]) -> tuple[int, int]:
    """Gives (height, width) of a camera feature, channels last or first."""
    a, b, c = feature["shape"]
    return (b, c) if a in (1, 3) and c not in (1, 3) else (a, b)


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
