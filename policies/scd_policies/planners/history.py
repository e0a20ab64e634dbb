"""What one episode has shown so far, as a world needs it to go on from there.

A world starts at a frame with the frames before it as context (`scd_world/world/starts.py`), in training as
in the environment. A planner that joins an episode hands over just that: the newest frames that were
observed, the actions between them, and the state and action one frame before the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scd_world.robot_data.schema import DataSchema
from scd_world.world.starts import StartState

STATE_KEYS = ("agent_pos", "environment_state")


class History:
    """Keeps the newest `frames` observations of an episode and the actions taken at them, in raw units."""

    def __init__(self, schema: DataSchema, frames: int, images: bool, task: int) -> None:
        self.schema, self.frames, self.images, self.task = schema, frames, images, task
        self.states: list[np.ndarray] = []
        self.pixels: list[np.ndarray] = []
        self.actions: list[np.ndarray] = []
        self.prev: np.ndarray | None = None  # state and action before the first that is kept

    def observe(self, obs: Mapping[str, Any]) -> None:
        """Adds an observation. ValueError where it is not of the kind that the world was trained on."""
        if self.states and len(self.actions) < len(self.states):
            raise RuntimeError("two observations without an action between them: call act() first")
        self.states.append(state_of(obs, self.schema))
        self.pixels.append(pixels_of(obs, self.schema) if self.images else np.zeros(0, np.uint8))
        if len(self.states) > self.frames:
            self.prev = np.concatenate([self.states.pop(0), self.actions.pop(0)])
            self.pixels.pop(0)

    def act(self, action: np.ndarray) -> None:
        """Adds the action (A,) that is taken at the newest observation."""
        self.actions.append(np.asarray(action, np.float32))

    def start(self) -> StartState:
        """Gives the newest observation with its context, to start a world from."""
        unknown = np.full(len(self.schema.action), np.nan, np.float32)  # at rest
        prev = np.concatenate([self.states[0], unknown]) if self.prev is None else self.prev
        action = np.reshape(self.actions, (len(self.actions), len(self.schema.action)))
        return StartState(
            pixels=np.stack(self.pixels),
            state=np.stack(self.states),
            action=action.astype(np.float32),
            prev=prev,
            task=self.task,
        )


def state_of(obs: Mapping[str, Any], schema: DataSchema) -> np.ndarray:
    """Gives (S,): what the world calls its state, of one row's observation."""
    parts = []
    for key in STATE_KEYS:
        names = getattr(schema, key)
        if not names:
            continue
        if key not in obs:
            raise ValueError(
                f"the planner's world was trained with {key!r} {list(names)}, and the environment observes "
                f"{sorted(obs)}: plan in a world of this robot's own recordings"
            )
        value = np.asarray(obs[key], np.float32)
        if value.shape != (len(names),) or not np.isfinite(value).all():
            raise ValueError(
                f"{key!r} holds {value.shape} values ({value!r:.60}); the planner's world expects "
                f"{len(names)} finite ones, {list(names)}"
            )
        parts.append(value)
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def pixels_of(obs: Mapping[str, Any], schema: DataSchema) -> np.ndarray:
    """Gives (V, H, W, 3) uint8, the cameras in the world's order, of one row's observation."""
    shown = obs.get("pixels")
    if shown is None:
        raise ValueError(
            f"this planner needs images, and the environment observes {sorted(obs)} alone: let it render "
            "them, or plan with state_only=true where the world's state prior is enough"
        )
    cameras = shown if isinstance(shown, Mapping) else dict.fromkeys(schema.cameras[:1], shown)
    expected = (schema.height, schema.width, 3)
    for name in schema.cameras:
        found = np.shape(cameras[name]) if name in cameras else None
        if found != expected:
            what = "no such camera" if found is None else f"an image of {found}"
            raise ValueError(
                f"the planner's world sees camera {name!r} as {expected}; this environment gives {what} "
                f"(it has {sorted(cameras)})"
            )
        if (kind := np.asarray(cameras[name]).dtype) != np.uint8:  # 0 to 1 would be black
            raise ValueError(
                f"the planner's world sees camera {name!r} as uint8, 0 to 255; this environment gives "
                f"{kind}: let it observe images of bytes"
            )
    return np.stack([np.asarray(cameras[name]) for name in schema.cameras])
