"""LeRobot's names for what is recorded: keys, cameras, image sizes, and a name for every dimension."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scd_world.robot_data.camera_keys import short_names

STATE, ENVIRONMENT_STATE = "observation.state", "observation.environment_state"
ACTION, REWARD, SUCCESS, DONE = "action", "next.reward", "next.success", "next.done"
LOW_DIM = (ACTION, STATE, ENVIRONMENT_STATE, REWARD, SUCCESS, DONE)
SET_ASIDE = "recorded."  # before the name that data.keys gives to what is not to be read


@dataclass(frozen=True)
class Feature:
    """Describes one thing that a LeRobotDataset records."""

    stored: str  # its name on disk
    dtype: str  # image, video, or of its numbers
    shape: tuple[int, ...]
    names: Any = None  # of its dimensions, however nested
    is_depth: bool = False

    @property
    def is_camera(self) -> bool:
        return self.dtype in ("image", "video")

    @property
    def row_size(self) -> int:
        """Counts the values in a row, however many: numpy's own product of sizes overflows."""
        return math.prod(self.shape)

    @property
    def is_vector(self) -> bool:
        return len(self.shape) == 1 and self.dtype.startswith(("float", "int"))

    @property
    def image_size(self) -> tuple[int, int]:
        """Gives (height, width) of a camera, channels last or first."""
        a, b, c = self.shape
        return (b, c) if a in (1, 3) and c not in (1, 3) else (a, b)


def vector_feature(names: list[str]) -> dict[str, Any]:
    """Gives LeRobot's feature of a float32 vector with these names."""
    return {"dtype": "float32", "shape": (len(names),), "names": names}


def camera_feature(image: np.ndarray, videos: bool) -> dict[str, Any]:
    """Gives LeRobot's feature of a camera with such images uint8 (H, W, 3)."""
    names = ["height", "width", "channels"]
    return {"dtype": "video" if videos else "image", "shape": image.shape, "names": names}


def dim_names(key: str, feature: Feature) -> tuple[str, ...]:
    """Gives a name for each dimension of a feature, the dataset's own where it has as many: no name twice."""
    count = feature.row_size
    names = flat_names(feature.names)
    if len(set(names)) < len(names):  # two arms with a gripper each
        names = flat_names(feature.names, with_groups=True)
    if len(names) != count:
        names = [f"{key.rsplit('.', 1)[-1]}_{i}" for i in range(count)]
    return _told_apart(names)


def _told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """Gives the names, from its second time on each with a number that no other one has."""
    taken, seen = set(names), dict[str, int]()
    apart = []
    for name in names:
        number = seen.get(name, 0) + 1
        new = f"{name}_{number}" if number > 1 else name
        while number > 1 and new in taken:
            number += 1
            new = f"{name}_{number}"
        seen[name] = number
        taken.add(new)
        apart.append(new)
    return tuple(apart)


def flat_names(names: Any, with_groups: bool = False, group: str = "") -> list[str]:
    """Gives names in order, however they are nested: [a, b], [[a, b]], {group: [a, b]}, {a: 0, b: 1}, and so
    on.

    A dict whose values are numbers says which dimension is whose, and is read in that order. with_groups:
    each name behind its groups' (left.gripper).
    """
    if names is None:
        return []
    if isinstance(names, Mapping):
        if all(isinstance(index, int) for index in names.values()):
            return flat_names(sorted(names, key=lambda name: names[name]), with_groups, group)
        inner = [flat_names(value, with_groups, f"{group}{name}.") for name, value in names.items()]
        return [name for part in inner for name in part]
    if isinstance(names, list | tuple):
        return [name for part in names for name in flat_names(part, with_groups, group)]
    return [f"{group}{names}" if with_groups else str(names)]


def camera_keys(features: Mapping[str, Feature], wanted: Sequence[str]) -> dict[str, str]:
    """Gives short name → feature key of the RGB cameras, in the dataset's order or the wanted one; may be
    empty. One that was set aside is none."""
    cameras = [
        key
        for key, feature in features.items()
        if feature.is_camera and not feature.is_depth and not is_set_aside(key, feature)
    ]
    return wanted_of(short_names(cameras), wanted)


def is_set_aside(key: str, feature: Feature) -> bool:
    """Says whether data.keys gave a feature the name of what is not read."""
    return key.startswith(SET_ASIDE) and key != feature.stored


def wanted_of[T](found: Mapping[str, T], wanted: Sequence[str]) -> dict[str, T]:
    """Gives the cameras that are wanted, in that order; all where none is named. ValueError for an unknown
    one."""
    if unknown := sorted(set(wanted) - set(found)):
        known = ", ".join(found) or "none"
        raise ValueError(f"no camera called {', '.join(unknown)}; the dataset has {known}")
    return {name: found[name] for name in wanted or found}
