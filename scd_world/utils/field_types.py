"""Whether a dataclass that was made of a file's values holds what its annotations say."""

from __future__ import annotations

import sys
from functools import cache
from numbers import Integral, Real
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

WORDS = {
    int: ("a whole number", "whole numbers"),
    float: ("a finite number", "finite numbers"),
    bool: ("true or false", "true or false"),
    str: ("a text", "texts"),
}
hints: Any = cache(get_type_hints)


def check_types(values: Any, where: str) -> None:
    """Raises ValueError unless every field of the dataclass `values` holds what its annotation says.

    A bool is no number, a text is none, and numbers are finite. where: what the fields belong to.
    """
    for name, kind in hints(type(values)).items():
        value = getattr(values, name)
        if not holds(value, kind):
            raise ValueError(f"{where}.{name}={value!r:.80}: expected {in_words(kind)}")


def holds(value: Any, kind: Any) -> bool:
    """Says whether a value is what a field of this type may hold: a number, text, bool, or such in a tuple or
    list."""
    container, inner = get_origin(kind), get_args(kind)
    if container is UnionType:
        return any(holds(value, one) for one in inner)
    if container in (tuple, list):
        if container is list or inner[1:] == (...,):
            return isinstance(value, container) and all(holds(one, inner[0]) for one in value)
        return isinstance(value, tuple) and len(value) == len(inner) and all(map(holds, value, inner))
    if kind is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if kind is float:
        # By comparison: a whole number may be too large for a float, and NaN is in no range.
        number = isinstance(value, Real) and not isinstance(value, bool)
        return number and bool(abs(value) <= sys.float_info.max)
    return isinstance(value, kind)


def in_words(kind: Any, many: bool = False) -> str:
    """Says what `holds` expects: "a whole number", "a list of texts"."""
    container, inner = get_origin(kind), get_args(kind)
    if container is UnionType:
        return " or ".join(in_words(one, many) for one in inner)
    if container is list or (container is tuple and inner[1:] == (...,)):
        return ("lists of " if many else "a list of ") + in_words(inner[0], True)
    if container is tuple:
        return f"{'lists' if many else 'a list'} of {len(inner)} {in_words(inner[0], True)}"
    return WORDS[kind][many] if kind in WORDS else f"a {kind.__name__}"
