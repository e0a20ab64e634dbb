"""What differs between two sets of settings, a line each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WITHOUT = {
    "data.drop_features": [],
    "data.stride": 1,
    "prior.calibration_share": 0.0,
    "prior.renderer_width": 96,
    "prior.scene_features": 0,
    "prior.static_layer": False,
    "prior.motion_channels": 0,
}  # what younger settings were before there were any


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """What differs between two sets of settings, a line each: {'steps': 'steps: 10 before, 20 now'}."""
    old, new = flat(old), flat(new)
    old = {key: value for key, value in WITHOUT.items() if key in new} | old
    different = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
    return {key: f"{key}: {old.get(key)} before, {new.get(key)} now" for key in different}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'model': {'width': 96}} → {'model.width': 96}."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return result
