"""Checks of settings: each complaint names the setting, its value and what was expected; all come at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any, get_type_hints

SMALLEST_PATCH = 4  # px on each side, of those that are offered

_collected: ContextVar[list[str] | None] = ContextVar("collected", default=None)


def complain(message: str) -> None:
    """Raises ValueError; inside `all_at_once` it keeps the message for the end, and what follows is checked
    too."""
    found = _collected.get()
    if found is None:
        raise ValueError(message)
    found.append(message)


@contextmanager
def all_at_once() -> Iterator[None]:
    """Collects what is complained of inside, and raises it as one ValueError, a line each."""
    found: list[str] = []
    token = _collected.set(found)
    try:
        yield
    except ValueError as error:
        if not found:
            raise
        found.append(str(error))
    finally:
        _collected.reset(token)
    if len(found) == 1:
        raise ValueError(found[0])
    if found:
        raise ValueError(f"{len(found)} things are wrong:" + "".join(f"\n  {line}" for line in found))


@contextmanager
def unheard() -> Iterator[None]:
    """Lets pass what is complained of inside, of settings that are checked once they are complete."""
    token = _collected.set([])
    try:
        yield
    finally:
        _collected.reset(token)


def check_again(settings: Any) -> None:
    """Raises ValueError with all that is wrong with a dataclass and those in it."""
    with all_at_once():
        parts = [settings]
        while parts:
            part = parts.pop()
            parts += [inner for f in fields(part) if is_dataclass(inner := getattr(part, f.name))]
            getattr(part, "__post_init__", lambda: None)()


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        complain(f"{name}={value!r}: expected one of {', '.join(allowed)}")


def above(name: str, value: float, bound: float) -> None:
    if not value > bound:
        complain(f"{name}={value}: expected a number above {bound}")


def between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        complain(f"{name}={value}: expected a number between {low} and {high}")


def check_arguments(given: Iterable[str], known: Sequence[str], who: str) -> None:
    """Raises TypeError for an argument that `who` does not take: names it, those it takes, and a similar
    one."""
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"unknown argument {name!r}: {who} takes {known}.{hint}")


def from_dict[C](cls: type[C], values: Mapping[str, Any]) -> C:
    """A (nested) config dataclass of JSON values; unknown keys raise ValueError."""
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{cls.__name__} has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    types = get_type_hints(cls)
    return cls(**{k: from_dict(types[k], v) if is_dataclass(types[k]) else v for k, v in values.items()})


def patch_sizes(side: int, cell: int) -> range:
    """Gives the patches, in cells of so many pixels, that a side of pixels may hold: cells of a latent come
    in pairs."""
    step = 1 if cell == 1 else 2
    return range(step, side // cell + 1, step)


def check_patch(patch: int, height: int, width: int, cell: int = 1, is_store: bool = False) -> None:
    """ValueError, with what would do, unless a patch, in cells of so many pixels, divides the frame.

    is_store: frames are as they were built, and are not resized while they are read.
    """
    if height % (patch * cell) or width % (patch * cell):
        of_cells = "" if cell == 1 else f", of cells of {cell}×{cell} pixels,"
        fit = fitting_patches(height, width, cell)
        beside = "" if cell == 1 or not fit else " (with codec=autoencoder; alone, model.patch counts pixels)"
        resize = "Or resize a recording's frames while they are read: data.image_size=96"
        if is_store:
            resize = "Or build the store in another size: scd-data … data.image_size=96"
        pixels = "" if cell == 1 or not fitting_patches(height, width, 1) else "codec=identity"
        complain(
            f"patch={patch}{of_cells} does not divide the frame {height}×{width}. Patches that do: "
            f"{', '.join(map(str, fit)) or 'none'}{beside}. {resize}"
            f"{pixels and f'; or draw pixels, not latents: {pixels}'}"
        )


def fitting_patches(height: int, width: int, cell: int) -> list[int]:
    """Lists the patches, in cells of so many pixels, that divide a frame and are not too small."""
    sizes = [size for size in patch_sizes(min(height, width), cell) if size * cell >= SMALLEST_PATCH]
    return [size for size in sizes if height % (size * cell) == width % (size * cell) == 0]
