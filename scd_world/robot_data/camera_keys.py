"""A camera's short name and LeRobot's key of it, there and back: `top` and `observation.images.top`."""

from __future__ import annotations

from collections.abc import Iterable

IMAGE, IMAGES = "observation.image", "observation.images."
LONE = "image"  # what a camera without a name is called


def short_name(key: str) -> str:
    """Gives the short name of the camera of this key; a key that is none of LeRobot's is its own name."""
    return LONE if key == IMAGE else key.removeprefix(IMAGES)


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Gives short name → key, in order; keys that would share a name (`observation.image` and
    `observation.images.image`) are their own."""
    short = {key: short_name(key) for key in keys}
    names = list(short.values())
    return {name if names.count(name) == 1 else key: key for key, name in short.items()}


def usual_keys(names: Iterable[str]) -> dict[str, str]:
    """Gives short name → the key that LeRobot's own environments would use, where no other was recorded.

    A camera called `image` may have been either key: alone it is `observation.image`, beside others
    `observation.images.image`.
    """
    names = list(names)
    return {LONE: IMAGE} if names == [LONE] else {name: IMAGES + name for name in names}
