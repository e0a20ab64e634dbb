"""Which recorded array is what: the state, the action, a camera; by its name and shape, or as the user says.

`keys` (the setting data.keys) maps a recorded array to LeRobot's name for it. Several that have one name make
it up side by side, in the order in which they are given. What is called `recorded.<name>` is not read.

N rows, h w pixels of a frame.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scd_datasets.sources.lerobot.features import LOW_DIM, SET_ASIDE, wanted_of
from scd_datasets.sources.lerobot.keys import check_target, did_you_mean
from scd_datasets.sources.picture_kind import LEFT_OUT, frame_layout, picture_kind, value_scale
from scd_datasets.sources.source import Finding
from scd_world.robot_data.camera_keys import short_name

# What robosuite, robomimic, LIBERO, Diffusion Policy and UMI call a robot's pose, without a `robot0_` before
# it; in this order. Velocities, and sines and cosines of what is there already, are left to data.keys.
POSES = (
    "joint_pos",
    "joint_states",
    "joint",
    "eef_pos",
    "eef_quat",
    "eef_rot_axis_angle",
    "eef_pose",
    "ee_pos",
    "ee_ori",
    "gripper_qpos",
    "gripper_states",
    "gripper_width",
)
ROBOT = re.compile(rf"(robot\d*_|)({'|'.join(sorted(POSES, key=len, reverse=True))})")
SAMPLED = 8  # frames that tell the range of a camera's values


@dataclass(frozen=True)
class Camera:
    """A camera's array: where it lies, how large its frames are, and what its values are multiplied by."""

    name: str
    size: tuple[int, int]  # (h, w)
    kind: str
    scale: float


def proprioception(names: Iterable[str]) -> list[str]:
    """Gives those of the arrays that are a robot's pose by their name's last part, robot by robot."""
    found = [(match, name) for name in names if (match := ROBOT.fullmatch(name.rpartition("/")[2]))]
    return [name for match, name in sorted(found, key=lambda pair: (pair[0][1], POSES.index(pair[0][2])))]


def choose_low_dim(
    arrays: Mapping[str, Any], usual: Mapping[str, Sequence[str]], keys: Mapping[str, str], where: str
) -> dict[str, tuple[str, ...]]:
    """Gives LeRobot's name → the arrays that make it up: those that `keys` names, else the usual ones that
    are there.

    Raises ValueError for a key that names no array or no feature, and for an array that holds no numbers.
    """
    check_keys(arrays, keys, where)
    chosen: dict[str, tuple[str, ...]] = {}
    for feature in LOW_DIM:
        asked = tuple(name for name, meant in keys.items() if meant == feature)
        present = tuple(name for name in usual.get(feature, ()) if name in arrays and name not in keys)
        if asked or present:
            chosen[feature] = asked or present
    for name in (name for names in chosen.values() for name in names):
        if arrays[name].dtype.kind not in "uifb":
            raise ValueError(f"{where}: {name} is {arrays[name].dtype}; expected integers, floats or bool")
    return chosen


def dim_labels(feature: str, arrays: Mapping[str, Any]) -> tuple[str, ...]:
    """Gives a name for each dimension of a feature: state_0, …; by the arrays' names where it has several."""
    if len(arrays) == 1:
        (array,) = arrays.values()
        return tuple(f"{feature.rpartition('.')[2]}_{i}" for i in range(row_size(array)))
    short = [name.rpartition("/")[2] for name in arrays]
    names = short if len(set(short)) == len(short) else list(arrays)
    sizes = [(name, row_size(array)) for name, array in zip(names, arrays.values(), strict=True)]
    return tuple(f"{name}_{i}" if n > 1 else name for name, n in sizes for i in range(n))


def row_size(array: Any) -> int:
    """Counts the values in a row."""
    return int(np.prod(array.shape[1:]))


def merged(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Gives arrays (L, …) side by side (L, n), as many rows as all of them have; a single one as it is."""
    if len(parts) == 1:
        return np.asarray(parts[0])
    rows = min(map(len, parts))
    return np.concatenate([part[:rows].reshape(rows, -1) for part in parts], axis=1)


def check_keys(arrays: Mapping[str, Any], keys: Mapping[str, str], where: str) -> None:
    """Raises ValueError, with what was probably meant, for a key that names no array or no feature."""
    for name, feature in keys.items():
        if name not in arrays:
            raise ValueError(f"data.keys: {name} is not recorded in {where}{did_you_mean(name, arrays)}")
        check_target(name, feature)


def find_cameras(
    arrays: Mapping[str, Any],
    usual: Mapping[str, str],
    keys: Mapping[str, str],
    wanted: Sequence[str],
    where: str,
) -> tuple[dict[str, str], list[Finding]]:
    """Gives short name → array of the cameras, in order or as wanted, and what is left out: depth and labels.

    usual: array (N, …) → short name, of those that may hold pictures. No value is read. Raises ValueError for
    a camera that is not there, or holds no colors.
    """
    named = {name: short for name, short in usual.items() if name not in keys}
    named |= {
        name: camera_name(feature)
        for name, feature in keys.items()
        if feature not in LOW_DIM and not feature.startswith(SET_ASIDE)
    }
    found: dict[str, str] = {}
    left_out = []
    for name, short in named.items():
        kind = picture_kind(arrays[name].dtype, arrays[name].shape[1:], name)
        if kind is None or kind in LEFT_OUT:
            what = f"{arrays[name].dtype} {arrays[name].shape} is {kind or 'no picture'}"
            if short in wanted or name in keys:
                raise ValueError(f"{where}: {name} {what}; a camera is uint8 (rows, height, width, 3)")
            left_out += [Finding(what, name, "left out", notable=False)] if kind else []
        elif short in found:
            raise ValueError(
                f"{where}: {found[short]} and {name} are both called {short}; tell them apart by data.keys"
            )
        else:
            found[short] = name
    return wanted_of(found, wanted), left_out


def list_arrays(arrays: Mapping[str, Any], left_out: Sequence[Finding] = ()) -> str:
    """Lists what there is instead of a camera, and what is none."""
    there = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items())
    return there + "".join(f"; {finding.where} is left out: {finding.what}" for finding in left_out)


def camera_name(feature: str) -> str:
    """Gives the short name of a camera that LeRobot calls `feature`."""
    return short_name(feature)


def open_camera(array: Any, name: str, where: str) -> Camera:
    """Finds out size and range of a camera's pictures (N, …); ValueError where the values are no gray
    levels."""
    layout = frame_layout(array.shape[1:])
    assert layout is not None
    try:
        scale = value_scale(sample(array)) if array.dtype != np.uint8 else 1.0
    except ValueError as error:
        raise ValueError(f"{where}: {name} {error}. Or leave it out: data.cameras=[…]") from error
    kind = picture_kind(array.dtype, array.shape[1:], name)
    return Camera(name, layout[:2], str(kind), scale)


def sample(array: Any) -> list[np.ndarray]:
    """Reads a few frames from first to last; those that cannot be read are damage, and told as that later."""
    frames = []
    for row in np.unique(np.linspace(0, array.shape[0] - 1, SAMPLED).astype(int)) if array.shape[0] else ():
        try:
            frames.append(np.asarray(array[int(row)]))
        except (RuntimeError, ValueError, OSError):
            continue
    return frames


def picture_findings(cameras: Iterable[Camera]) -> list[Finding]:
    """Lists what is not as usual in the cameras' pictures, and how they are read."""
    found = []
    for camera in cameras:
        if camera.kind == "gray":
            found.append(Finding("gray pictures", camera.name, "read as three equal colors", False))
        if camera.kind == "rgba":
            found.append(Finding("pictures with an alpha channel", camera.name, "alpha is left out", False))
        if camera.scale != 1:
            what = f"floats, from 0 to 1 in {SAMPLED} frames looked at"
            found.append(Finding(what, camera.name, "read as gray levels of 1/255"))
    return found
