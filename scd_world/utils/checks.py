"""Checks of settings: each complaint names the setting, its value and what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(allowed)}")


def above(name: str, value: float, bound: float) -> None:
    if not value > bound:
        raise ValueError(f"{name}={value}: expected a number above {bound}")


def between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name}={value}: expected a number between {low} and {high}")


def from_dict[C](cls: type[C], values: Mapping[str, Any]) -> C:
    """A (nested) config dataclass of JSON values; unknown keys raise ValueError."""
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{cls.__name__} has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    types = get_type_hints(cls)
    return cls(**{k: from_dict(types[k], v) if is_dataclass(types[k]) else v for k, v in values.items()})


def check_patch(patch: int, height: int, width: int) -> None:
    """ValueError, with what would do, unless the patch divides the frame."""
    if height % patch or width % patch:
        fit = [size for size in range(4, min(height, width) + 1) if height % size == width % size == 0]
        raise ValueError(
            f"patch={patch} does not divide the frame {height}×{width}. Patches that do: "
            f"{', '.join(map(str, fit)) or 'none'}; or resize a LeRobotDataset's frames while they are read: "
            "with data.image_size=96, 16 always does (scd-train … data.image_size=96 model.patch=16)"
        )
