"""Whether a LeRobot policy fits an environment; where it does not, an error lists both sides and the cure.

Everything here goes by LeRobot's names: `observation.images.top`, `observation.state`, `action`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.functional import interpolate

if TYPE_CHECKING:
    from lerobot.configs import PreTrainedConfig

Shapes = Mapping[str, tuple[int, ...]]  # by LeRobot's name; images (C, H, W)
IMAGE, ACTION = "observation.image", "action"
OBSERVED = ("VISUAL", "STATE", "ENV")
STRETCH = 0.05  # of the proportions: rounding to whole patches stays below


def policy_shapes(config: PreTrainedConfig) -> dict[str, tuple[int, ...]]:
    """Gives the shapes of a policy's inputs and action, without the cameras that it declares as empty."""
    inputs = {
        key: tuple(feature.shape)
        for key, feature in (config.input_features or {}).items()
        if feature.type.name in OBSERVED and "empty_camera" not in key
    }
    return inputs | {ACTION: tuple(config.output_features[ACTION].shape)}


def check_fit(
    policy: Shapes,
    environment: Shapes,
    rename: Mapping[str, str],
    rename_hint: Callable[[dict[str, str]], str],
    resize_hint: str,
    inputs_hint: Callable[[Collection[str]], str] | None = None,
) -> None:
    """Raises ValueError where the policy does not get what it needs; the environment may have more.

    policy, environment: shapes by LeRobot's name, images (C, H, W).
    rename: the environment's key → the policy's.
    rename_hint: writes how the user gives a rename, the environment's key → the policy's.
    resize_hint: how a height and a width are given, with `{}` in their places.
    inputs_hint: where a policy can do without some of its inputs, writes how the others are chosen.
    """
    if strange := sorted(set(rename) - set(environment)):
        raise ValueError(
            f"the rename map names {', '.join(strange)}, but the environment has {format_shapes(environment)}"
        )
    given = {rename.get(key, key): shape for key, shape in environment.items()}
    wrong = {key: shape for key, shape in policy.items() if given.get(key) != shape}
    if not wrong:
        return
    lines = ["this policy does not fit this environment:"]
    for key, shape in wrong.items():
        lines.append(f"  {key}: the policy has {shape}, the environment {given.get(key, 'no such key')}")
    lines += [f"policy: {format_shapes(policy)}", f"environment: {format_shapes(given)}"]
    if found := suggest_rename(policy, given):
        lines.append(f"Likely cure: {rename_hint(found)}")
    if inputs_hint and (lacking := [key for key in wrong if key not in {*given, *found.values(), ACTION}]):
        kept = policy.keys() - set(lacking)
        lines.append(f"To do without {', '.join(lacking)}: {inputs_hint(kept)}")
    sizes = {shape[1:] for key, shape in wrong.items() if only_size_differs(shape, given.get(key))}
    if len(sizes) == 1:
        height, width = sizes.pop()
        lines.append(
            f"Images of another size: {resize_hint.format(height, width)} resizes them (to the policy they "
            "will look less sharp than those that it was trained on)"
        )
    if ACTION in wrong:
        lines.append("Nothing cures another action size: this policy was trained for another robot")
    raise ValueError("\n".join(lines))


def suggest_rename(policy: Shapes, environment: Shapes) -> dict[str, str]:
    """Gives, for each camera that the policy misses, the environment's unused one of most similar name."""
    missing = [key for key in cameras_of(policy) if key not in environment]
    unused = [key for key in cameras_of(environment) if key not in policy]
    found = {}
    for key in missing:
        if unused:
            best = max(unused, key=lambda other: similarity(key, other, policy, environment))
            unused.remove(best)
            found[best] = key
    return found


def cameras_of(shapes: Shapes) -> list[str]:
    """Lists the keys of images: what has the shape (C, H, W), whatever a dataset calls it."""
    return [key for key, shape in shapes.items() if len(shape) == 3]


def similarity(key: str, other: str, policy: Shapes, environment: Shapes) -> float:
    """Scores how alike two cameras' names are; images of the same size are preferred among equals."""
    a, b = (name.removeprefix(IMAGE).removeprefix("s.") for name in (key, other))
    return SequenceMatcher(None, a, b).ratio() + 0.01 * (policy[key] == environment[other])


def only_size_differs(wanted: tuple[int, ...], given: tuple[int, ...] | None) -> bool:
    """Says whether both are images of equally many channels."""
    return given is not None and len(given) == len(wanted) == 3 and given[0] == wanted[0]


def format_shapes(shapes: Shapes) -> str:
    return ", ".join(f"{key} {shape}" for key, shape in shapes.items())


def resize(images: Tensor, size: tuple[int, int], view: Sequence[int] | None = None) -> Tensor:
    """Resizes (B, C, H, W) float to (B, C, *size): the whole, or its view (top, left, height, width)."""
    if view is not None:
        top, left, height, width = view
        images = images[..., top : top + height, left : left + width]
    return interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)


def for_camera[T](key: str, known: Mapping[str, T]) -> T | None:
    """Looks up, by camera name, the camera under LeRobot's name `key`; a lone one needs no name."""
    if key == IMAGE and len(known) == 1:
        return next(iter(known.values()))
    return known.get(key.removeprefix(f"{IMAGE}s."))


def dataset_keys(observed: Iterable[str], camera_keys: Mapping[str, str]) -> dict[str, str]:
    """Gives, for each key that LeRobot makes of an environment's observation, the one that the data had.

    camera_keys: camera → the data's key; what is not named there keeps its key.
    """
    return {key: for_camera(key, camera_keys) or key for key in observed}


def warn_proportions(key: str, recorded: Sequence[int] | None, size: Sequence[int]) -> None:
    """Warns where a resize to (height, width) distorts what was recorded as (height, width): for a policy
    that is another camera, and nothing else would report it."""
    if recorded is None:
        return
    stretch = (size[1] / recorded[1]) / (size[0] / recorded[0]) - 1
    if abs(stretch) > STRETCH:
        warnings.warn(
            f"{key} was recorded in {tuple(recorded)} and is resized to {tuple(size)}, which shows things "
            f"{abs(stretch):.0%} {'wider' if stretch > 0 else 'narrower'}: right only if the policy was "
            "trained on images distorted like that",
            stacklevel=3,
        )
