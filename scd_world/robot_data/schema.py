"""What one robot's data looks like: cameras, state, action, rate. Plain data, JSON in and out, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, NamedTuple

from scd_world.robot_data.camera_keys import usual_keys
from scd_world.utils.checks import above, between
from scd_world.utils.field_types import check_types

SMALLEST_RANGE = 1e-6  # half of it, in raw units: below it a dimension counts as constant
ROOM = 1e-3  # of an action that never moved: too little to harm a robot, and thousands of steps of a float32
BOUNDS = {"height": (1, 65536), "width": (1, 65536), "horizon": (1, 10**9)}
LARGEST = 1e37  # raw units of an action: a float32 holds it, and the width of a range of such

RESIZES = ("stretch", "letterbox")


class ImageRegion(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


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
    fps: float  # frames per second, maybe a fraction: 29.97
    tasks: tuple[str, ...]
    reward: bool  # the data has next.reward
    success: bool  # the data has next.success
    horizon: int  # steps of the longest recorded episode: where an environment truncates by default
    recorded: tuple[
        tuple[int, int], ...
    ] = ()  # each camera's own (height, width); () where it is the frame's
    resize: str = "stretch"  # how images came from there into the frame: stretch or letterbox
    camera_keys: tuple[
        str, ...
    ] = ()  # LeRobot's key of each camera as recorded; () where it is the usual one

    def __post_init__(self) -> None:
        check_types(self, "schema")
        for name, (least, most) in BOUNDS.items():
            between(f"schema.{name}", getattr(self, name), least, most)
        above("schema.fps", self.fps, 0)
        if float(self.fps).is_integer():  # 10 and 10.0 are one rate, written as 10
            object.__setattr__(self, "fps", int(self.fps))
        if not self.cameras:
            raise ValueError("a schema needs at least one camera; none was given")
        if not len(self.action) == len(self.action_low) == len(self.action_high) > 0:
            raise ValueError(
                f"action names, lows and highs must have one length ≥ 1; got {len(self.action)}, "
                f"{len(self.action_low)}, {len(self.action_high)}"
            )
        for name, low, high in zip(self.action, self.action_low, self.action_high, strict=True):
            for bound in (low, high):
                between(f"schema.action_low or action_high of {name!r}", bound, -LARGEST, LARGEST)
            if low > high:
                raise ValueError(f"schema.action_low of {name!r} is {low}, above its action_high of {high}")
        for side in (side for size in self.recorded for side in size):
            between("schema.recorded", side, *BOUNDS["height"])
        if len(self.recorded) not in (0, len(self.cameras)) or self.resize not in RESIZES:
            raise ValueError(
                f"expected one recorded size per camera (or none) and a resize of {RESIZES}; got "
                f"{self.recorded} for {self.cameras}, {self.resize!r}"
            )
        if self.camera_keys and len(set(self.camera_keys)) != len(self.cameras):
            raise ValueError(
                f"expected a key of its own for each camera (or none); got {self.camera_keys} for "
                f"{self.cameras}"
            )

    @property
    def state(self) -> tuple[str, ...]:
        return self.agent_pos + self.environment_state

    @property
    def channels(self) -> int:
        return 3 * len(self.cameras)

    @property
    def constant_actions(self) -> tuple[int, ...]:
        """The dimensions of the action that never moved in the recordings: nobody knows what they do."""
        ranges = zip(self.action_low, self.action_high, strict=True)
        return tuple(d for d, (low, high) in enumerate(ranges) if is_constant(low, high))

    @property
    def action_bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Lowest and highest action that is taken, raw units, for whoever rescales or samples actions.

        As recorded; where an action never moved, with a little room on both sides: what has no width cannot
        be rescaled to [-1, 1]. The room is small, for beyond the recorded value a real robot is unknown, and
        it means nothing to a model (`Normalizer.encode_action`).
        """
        low, high = list(self.action_low), list(self.action_high)
        for d in self.constant_actions:
            room = ROOM * max(1.0, abs(low[d]), abs(high[d]))
            low[d], high[d] = low[d] - room, high[d] + room
        return tuple(low), tuple(high)

    @property
    def recorded_sizes(self) -> dict[str, tuple[int, int]]:
        """Camera → (height, width) as recorded."""
        sizes = self.recorded or ((self.height, self.width),) * len(self.cameras)
        return dict(zip(self.cameras, sizes, strict=True))

    @property
    def lerobot_keys(self) -> dict[str, str]:
        """Camera → LeRobot's key of it, as the dataset had it."""
        if not self.camera_keys:
            return usual_keys(self.cameras)
        return dict(zip(self.cameras, self.camera_keys, strict=True))

    @property
    def views(self) -> dict[str, ImageRegion]:
        """Camera → where its image lies in the frame; beside it the frame is black."""
        frame, letterbox = (self.height, self.width), self.resize == "letterbox"
        return {camera: view_of(size, frame, letterbox) for camera, size in self.recorded_sizes.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; without what has its default, so that schemas and fingerprints outlive new fields."""
        defaults = {field.name: field.default for field in fields(self)}
        return {key: value for key, value in asdict(self).items() if value != defaults[key]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DataSchema:
        """The schema of a JSON object. Unknown or missing keys and values of wrong types raise ValueError."""
        if not isinstance(values, Mapping):
            raise ValueError(f"not a data schema: {values!r:.80}; expected an object")
        known = {field.name for field in fields(cls)}
        needed = {field.name for field in fields(cls) if field.default is MISSING}
        if not needed <= set(values) <= known:
            raise ValueError(
                f"not a data schema: missing keys {sorted(needed - set(values))}, "
                f"unknown keys {sorted(set(values) - known)}"
            )
        return cls(**{key: tuples(value) for key, value in values.items()})


def is_constant(low: float, high: float) -> bool:
    """Says whether a range has no width but that of rounding errors, which grow with the values."""
    return (high - low) / 2 <= SMALLEST_RANGE * max(1.0, abs(low), abs(high))


def view_of(recorded: tuple[int, int], frame: tuple[int, int], letterbox: bool) -> ImageRegion:
    """Where an image of `recorded` (height, width) lies in a frame of another size."""
    if not letterbox:
        return ImageRegion(0, 0, *frame)
    scale = min(frame[0] / recorded[0], frame[1] / recorded[1])
    height, width = (min(round(side * scale), most) for side, most in zip(recorded, frame, strict=True))
    return ImageRegion((frame[0] - height) // 2, (frame[1] - width) // 2, height, width)


def tuples(value: Any) -> Any:
    """JSON knows lists alone."""
    return tuple(map(tuples, value)) if isinstance(value, list) else value
