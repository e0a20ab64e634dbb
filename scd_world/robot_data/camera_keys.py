"""A camera's short name and LeRobot's key of it, there and back: `top` and `observation.images.top`."""

from __future__ import annotations

from collections.abc import Iterable

IMAGE, IMAGES = "observation.image", "observation.images."
LONE = "image"  # what a camera without a name is called


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Gives short name → key, in order. A key whose short name is taken, or that is none of LeRobot's, is its
    own name."""
    found: dict[str, str] = {}
    for key in keys:
        name = LONE if key == IMAGE else key.removeprefix(IMAGES)
        found[key if name in found else name] = key
    return found


def usual_keys(names: Iterable[str]) -> dict[str, str]:
    """Gives short name → the key that LeRobot's own environments would use, where no other was recorded.

    A camera called `image` may have been either key: alone it is `observation.image`, beside others
    `observation.images.image`.
    """
    names = list(names)
    return {LONE: IMAGE} if names == [LONE] else {name: IMAGES + name for name in names}
