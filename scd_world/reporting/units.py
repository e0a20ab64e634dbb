"""The unit of recorded numbers, as far as their names tell it: most recordings do not say."""

from __future__ import annotations

import re
from collections.abc import Iterable

UNITS = {
    "rad": "rad", "radian": "rad", "radians": "rad", "deg": "°", "degree": "°", "degrees": "°",
    "mm": "mm", "cm": "cm", "meter": "m", "meters": "m", "px": "px", "pixel": "px", "pixels": "px",
}  # fmt: skip
UNKNOWN = "the dataset's units"


def unit_of(names: Iterable[str]) -> str:
    """Gives the unit that all of these dimensions' names end in, such as `elbow_rad` or `x [mm]`.

    `the dataset's units` where one of them says none, or they differ.
    """
    units = {unit_in(name) for name in names}
    unit = units.pop() if len(units) == 1 else None
    return unit or UNKNOWN


def unit_in(name: str) -> str | None:
    """Finds the unit in one name: in brackets whatever it is, else a last word that is a unit."""
    if bracketed := re.search(r"[\[(]\s*([^\[\]()\d][^\[\]()]*?)\s*[\])]$", name):
        return bracketed[1]
    return UNITS.get(re.split(r"[\s_./-]", name.lower())[-1])
