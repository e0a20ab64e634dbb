"""What each number of the action is to a hand at the mouse: its range, where it rests, whether it stays put.

A position (a place to go to) stays where it was put; a speed, a torque or a difference goes back when it is
let go. Nobody says which of them an action is, but the recordings tell: an action that is a position has the
range of a number of the robot's own state, and follows it.

F start states, A action size.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from scd_world.play.tape import Moment
from scd_world.world.world import World

SAME_RANGE = 0.7  # share of both ranges that they have in common
TOGETHER = 0.5  # correlation of action and state


@dataclass(frozen=True)
class Control:
    """Says how one number of the action is driven; raw units."""

    name: str
    low: float
    high: float
    rest: float  # where it is when nobody touches it
    follower: int | None  # the number of the state that goes there: a position, which stays put
    constant: bool  # never moved in the recordings: the world takes the recorded value whatever is sent

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def controls_of(world: World) -> list[Control]:
    """Gives one control for each number of the action, in order."""
    schema = world.schema
    bounds = zip(*schema.action_bounds, strict=True)
    return [
        Control(
            name,
            low,
            high,
            rest=0.0 if follower is None and low <= 0 <= high else (low + high) / 2,
            follower=follower,
            constant=d in schema.constant_actions,
        )
        for d, (name, (low, high), follower) in enumerate(
            zip(schema.action, bounds, find_followers(world), strict=True)
        )
    ]


def find_followers(world: World) -> list[int | None]:
    """Gives, for each number of the action, which number of the state goes where it says; None: none does."""
    schema, starts = world.schema, world.starts
    state_low, state_high = world.stats.state_low.tolist(), world.stats.state_high.tolist()
    found: list[int | None] = []
    for d in range(len(schema.action)):
        low, high = schema.action_low[d], schema.action_high[d]
        best, follower = TOGETHER, None
        for p in range(len(schema.agent_pos)):
            common = min(high, state_high[p]) - max(low, state_low[p])
            whole = max(high, state_high[p]) - min(low, state_low[p])
            together = correlation(starts.action[:, d], starts.state[:, p])
            if common > SAME_RANGE * whole and together > best:
                best, follower = together, p
        found.append(follower)
    return found


def at_rest(controls: list[Control], moment: Moment) -> list[float]:
    """Gives the action (A,) of a hand that has touched nothing since a moment: positions stay where they were
    asked to be, or are."""
    action = [control.rest for control in controls]
    for d, control in enumerate(controls):
        if control.follower is not None:
            last = moment.state[control.follower] if moment.action is None else moment.action[d]
            action[d] = float(min(max(last, control.low), control.high))
    return action


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Gives Pearson's r of (F,) and (F,); 0 where one of them does not vary."""
    if len(a) < 3 or not (a.std() > 0 and b.std() > 0):
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
