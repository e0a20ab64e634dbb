"""A world's schema as Gymnasium spaces: how observations are named, and which actions are accepted.

B rows, V cameras, H W pixels, S state size, A action size. Keys are those of LeRobot's own environments.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from einops import rearrange
from gymnasium import spaces
from torch import Tensor

from scd_world.robot_data.schema import DataSchema

MARGIN = 0.1  # of the recorded range: how far beyond it an action may lie before it is called a mistake
Array = np.ndarray | Tensor
ANY = np.finfo(np.float32).max  # states are imagined, so the data's range does not bound them


def observation_space(schema: DataSchema, with_images: bool = True) -> spaces.Dict:
    """Gives `pixels` (one camera: a Box; several: a Dict by name) and the schema's low-dimensional keys."""
    entries: dict[str, spaces.Space] = {}
    if with_images:
        image = spaces.Box(0, 255, (schema.height, schema.width, 3), np.uint8)
        several = len(schema.cameras) > 1
        entries["pixels"] = spaces.Dict(dict.fromkeys(schema.cameras, image)) if several else image
    for key in ("agent_pos", "environment_state"):
        if size := len(getattr(schema, key)):
            entries[key] = spaces.Box(-ANY, ANY, (size,), np.float32)
    return spaces.Dict(entries)


def action_space(schema: DataSchema) -> spaces.Box:
    """Gives the Box of the recorded actions, in raw units, each dimension with a width
    (`DataSchema.action_bounds`)."""
    low, high = (np.array(bound, np.float32) for bound in schema.action_bounds)
    return spaces.Box(low, high, dtype=np.float32)


def observation(schema: DataSchema, pixels: Array, state: Array) -> dict[str, Any]:
    """Makes an observation of pixels uint8 (…, V, H, W, 3) and state (…, S), in arrays of its own, or both
    tensors; of V = 0 cameras, where no image was drawn, without `pixels`."""
    obs: dict[str, Any] = {}
    if pixels.shape[-4]:
        by_camera = {name: own(pixels[..., v, :, :, :]) for v, name in enumerate(schema.cameras)}
        obs["pixels"] = by_camera if len(by_camera) > 1 else by_camera[schema.cameras[0]]
    split = len(schema.agent_pos)
    if schema.agent_pos:
        obs["agent_pos"] = own(state[..., :split])
    if schema.environment_state:
        obs["environment_state"] = own(state[..., split:])
    return obs


def own(values: Array) -> Array:
    """Copies values, in C order."""
    if isinstance(values, np.ndarray):
        return values.copy()
    return values.clone(memory_format=torch.contiguous_format)


def tile_cameras(pixels: np.ndarray) -> np.ndarray:
    """Puts the cameras of pixels uint8 (V, H, W, 3) side by side: (H, V·W, 3)."""
    return rearrange(pixels, "V H W c -> H (V W) c").copy()


class ClipWarning:
    """Warns once in an environment's life that actions are clipped: they may be in another unit."""

    def __init__(self) -> None:
        self._given = False

    def give(self, clipped: np.ndarray, schema: DataSchema) -> None:
        """Names the dimensions that are `clipped`, (A,) bool, the first time that there are any."""
        if self._given or not clipped.any():
            return
        self._given = True
        low, high = schema.action_low, schema.action_high
        ranges = ", ".join(
            f"dimension {dim} ({schema.action[dim]!r}) [{low[dim]:g}, {high[dim]:g}]"
            for dim in np.flatnonzero(clipped)
        )
        warnings.warn(
            f"actions far outside the data's range are clipped to it: {ranges}. Are they in raw units? This "
            "is said once, and others may be clipped later",
            stacklevel=4,
        )


def check_action(
    action: Any,
    shape: tuple[int, ...],
    schema: DataSchema,
    clip: bool,
    acting: np.ndarray,
    warning: ClipWarning,
) -> np.ndarray:
    """Gives the action as float32 of `shape`, (A,) or (B, A), on the host; it may be a tensor on any device.
    Rows that are not `acting` may hold anything.

    Raises TypeError where it is no array of numbers, and ValueError for a wrong shape, NaN or infinity, and
    values further than MARGIN outside the recorded range (with `clip` they are clipped, and warned of).
    """
    if isinstance(action, Tensor):
        action = action.detach().cpu()
        action = action.double() if action.is_floating_point() else action  # NumPy has no bf16
    try:
        given = np.asarray(action)
        if given.dtype.kind not in "iufO":
            raise TypeError(f"its values are of type {given.dtype}")
        values = given.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"an action is an array of numbers of shape {shape}; got {type(action).__name__}: {error}"
        ) from error
    if values.shape != shape:
        raise ValueError(
            f"expected an action of shape {shape}, one value for each of {list(schema.action)}; got shape "
            f"{values.shape}. Give the dimensions that this world was recorded with, in this order."
        )
    active = np.broadcast_to(acting[..., None], shape)
    raise_out_of_range(
        active & ~np.isfinite(values),
        values,
        schema,
        "is not finite, and has no value to clip it to: whoever acts gave it",
    )
    low, high = map(np.array, schema.action_bounds)
    margin = MARGIN * (high - low)
    outside = active & ((values < low - margin) | (values > high + margin))
    if clip:
        warning.give(outside.reshape(-1, len(low)).any(0), schema)
    else:
        raise_out_of_range(
            outside, values, schema, "lies far outside it. Send raw units, or pass clip_actions=True"
        )
    return taken_action(values, schema, clip)


def taken_action(action: np.ndarray, schema: DataSchema, clip: bool) -> np.ndarray:
    """Gives the action (…, A) as a world takes it, float32: clipped where that is asked, and the recorded
    value, whatever was sent, where it never moved."""
    low, high = schema.action_bounds
    taken = (np.clip(action, low, high) if clip else np.array(action)).astype(np.float32)
    for d in schema.constant_actions:
        taken[..., d] = schema.action_low[d]
    return taken


def raise_out_of_range(wrong: np.ndarray, values: np.ndarray, schema: DataSchema, why: str) -> None:
    """Raises ValueError about the first wrong value: which it is, what was recorded, what to do."""
    if not wrong.any():
        return
    *row, dim = np.argwhere(wrong)[0].tolist()
    where = f"row {row[0]}, " if row else ""
    low, high = schema.action_low[dim], schema.action_high[dim]
    raise ValueError(
        f"action {where}dimension {dim} ({schema.action[dim]!r}): the data's range is [{low:g}, {high:g}], "
        f"in raw units; {values[(*row, dim)]:g} {why}."
    )
