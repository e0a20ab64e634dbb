"""A simulator beside the world: set to the same recorded start, it takes the same actions.

Whether a simulator is a world's own is asked of the pictures: reset to a recorded state, it has to draw the
recorded frame.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from scd_envs import simulators
from scd_world.play.pictures import to_png
from scd_world.play.tape import Truth
from scd_world.robot_data.schema import DataSchema
from scd_world.world.starts import StartStates
from scd_world.world.world import World

# name → how many numbers (robot's own state, other state, action) its worlds have
KNOWN = {"pusht": (2, 16, 2), "pendulum": (3, 0, 1)}
SAME = 8.0  # gray levels of mean difference: below it, two pictures show the same
ENDLESS = 10**9  # steps: the world's episode says when it ends
STATE_KEYS = ("agent_pos", "environment_state")


class Simulator:
    """Follows one imagined episode in the real simulator."""

    def __init__(self, env: gymnasium.Env, schema: DataSchema) -> None:
        self.env = env
        self.schema = schema
        self.actions: list[np.ndarray] = []  # taken since the start
        self.start: np.ndarray | None = None  # (S,)
        self.last: Truth | None = None

    def begin(self, state: np.ndarray) -> Truth:
        """Resets to a recorded state (S,), everything at rest."""
        self.start, self.actions = state, []
        obs, _ = self.env.reset(seed=0, options=options_of(state, self.schema))
        self.last = Truth(pictures_of(obs), 0.0, False, False)
        return self.last

    def step(self, action: np.ndarray) -> Truth:
        """Takes an action (A,); once the simulator has ended its episode, it stays where it is."""
        assert self.last is not None, "begin() comes first"
        self.actions.append(action)
        if not self.last.over:
            obs, reward, terminated, truncated, info = self.env.step(action)
            success = bool(info.get("is_success", False))
            self.last = Truth(pictures_of(obs), float(reward), success, bool(terminated or truncated))
        return self.last

    def follow(self, start: np.ndarray, actions: Sequence[np.ndarray]) -> Truth:
        """Goes to where these actions lead from a start: on from where it is, if that lies on the way.

        actions: the arrays themselves, not copies: that they are the same is seen by their identity.
        """
        done = len(self.actions)
        on_the_way = done <= len(actions) and all(map(operator.is_, actions, self.actions))
        if self.last is None or self.start is not start or not on_the_way:
            self.begin(start)
            done = 0
        for action in actions[done:]:
            self.step(action)
        assert self.last is not None
        return self.last

    def close(self) -> None:
        self.env.close()


def find_simulator(name: str, world: World) -> tuple[str | None, str]:
    """Gives the simulator of a world, by `simulator=`, and a sentence for people: why there is none, or why
    this one is.

    Raises ValueError where a simulator that was named does not take the world's states or actions.
    """
    if name == "none":
        return None, "no simulator was asked for"
    if name != "auto":
        distance = start_distance(name, world)
        if distance > SAME:
            return (
                name,
                f"{name} draws the recorded start otherwise: by {distance:.0f} gray levels, on average",
            )
        return name, f"{name} draws the recorded start as it was recorded"
    schema = world.schema
    sizes = len(schema.agent_pos), len(schema.environment_state), len(schema.action)
    for known, expected in KNOWN.items():
        if sizes != expected:
            continue
        try:
            distance = start_distance(known, world)
        except ImportError:
            return None, f"{known}'s simulator is not installed: pip install 'lerobot_env_scd_world[{known}]'"
        except ValueError:  # its numbers are of something else
            continue
        if distance <= SAME:
            return known, f"{known} draws the recorded start as it was recorded"
    return None, "no simulator is known that draws this world's recorded starts"


def open_simulator(name: str, world: World) -> Simulator:
    """Makes a simulator for one player; ValueError where it has other actions than the world."""
    schema = world.schema
    size = {"size": schema.height} if schema.height == schema.width else {}
    env = simulators.make(name, max_episode_steps=ENDLESS, **size)
    if env.action_space.shape != (len(schema.action),):
        raise ValueError(
            f"simulator={name} takes actions of shape {env.action_space.shape}, and this world's are "
            f"{schema.action}: name its own simulator, or none"
        )
    return Simulator(env, schema)


def start_distance(name: str, world: World) -> float:
    """Measures how far the simulator's picture of a recorded start is from the recorded one, in gray levels:
    the mean over all values; infinite where the pictures are of other sizes."""
    simulator = open_simulator(name, world)
    try:
        starts: StartStates = world.starts
        obs, _ = simulator.env.reset(seed=0, options=options_of(starts.state[0], world.schema))
        drawn = images_of(obs)[0]
        recorded = starts.pixels[0, 0]
        if drawn.shape != recorded.shape:
            return float("inf")
        return float(np.abs(drawn.astype(float) - recorded).mean())
    except TypeError as error:
        raise ValueError(f"simulator={name} does not take this world's states: {error}") from error
    finally:
        simulator.close()


def options_of(state: np.ndarray, schema: DataSchema) -> dict[str, Any]:
    """Gives the reset options of a recorded state (S,)."""
    own = len(schema.agent_pos)
    parts = dict(zip(STATE_KEYS, (state[:own], state[own:]), strict=True))
    return {key: value for key, value in parts.items() if len(value)}


def images_of(obs: dict[str, Any]) -> list[np.ndarray]:
    pixels = obs["pixels"]
    return list(pixels.values()) if isinstance(pixels, dict) else [pixels]


def pictures_of(obs: dict[str, Any]) -> tuple[bytes, ...]:
    return tuple(map(to_png, images_of(obs)))
