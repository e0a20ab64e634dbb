"""What one robot's data looks like: cameras, state, action, rate. Plain data, JSON in and out, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class DataSchema:
    """The shape and meaning of every number that a dataset, a world and an environment exchange.

    All cameras share one size, `height` × `width`; inside the model their channels are stacked,
    so that a frame is (C, H, W) with C = 3 · len(cameras).
    The model's `state` is `agent_pos` followed by `environment_state`.
    """

    cameras: tuple[str, ...]
    height: int
    width: int
    agent_pos: tuple[str, ...]  # names of the robot's own low-dimensional observation, may be empty
    environment_state: tuple[str, ...]  # names of what else was observed (object poses, …), may be empty
    action: tuple[str, ...]
    action_low: tuple[float, ...]  # raw units, as recorded
    action_high: tuple[float, ...]
    fps: int
    tasks: tuple[str, ...]
    reward: bool  # the data has next.reward
    success: bool  # the data has next.success
    horizon: int  # steps of the longest recorded episode: where an environment truncates by default

    def __post_init__(self) -> None:
        if not self.cameras:
            raise ValueError("a schema needs at least one camera; none was given")
        if not len(self.action) == len(self.action_low) == len(self.action_high) > 0:
            raise ValueError(
                f"action names, lows and highs must have one length ≥ 1; got {len(self.action)}, "
                f"{len(self.action_low)}, {len(self.action_high)}"
            )

    @property
    def state(self) -> tuple[str, ...]:
        return self.agent_pos + self.environment_state

    @property
    def channels(self) -> int:
        return 3 * len(self.cameras)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DataSchema:
        """The schema of a JSON object. Unknown or missing keys raise ValueError."""
        known = {field.name for field in fields(cls)}
        if set(values) != known:
            raise ValueError(
                f"not a data schema: missing keys {sorted(known - set(values))}, "
                f"unknown keys {sorted(set(values) - known)}"
            )
        return cls(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})
