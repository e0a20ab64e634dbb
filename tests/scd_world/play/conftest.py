"""Worlds to play in: of random weights, and one whose starts are a pendulum's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scd_envs.simulators.pendulum import Pendulum
from scd_world.play.recorder import Recorder, Target
from scd_world.play.session import PlaySession
from scd_world.play.tape import Tape
from scd_world.rollouts.imagine import world_features
from scd_world.world.starts import StartStates
from scd_world.world.world import World
from tests.scd_envs.conftest import make_world


@pytest.fixture(scope="session")
def world() -> World:
    """Two cameras, three numbers of state, two actions, two tasks, reward and success."""
    return make_world(cameras=("top", "wrist"), tasks=("push", "pull"))


@pytest.fixture(scope="session")
def bare_world() -> World:
    """Pictures and actions, and nothing else."""
    schema = {"agent_pos": (), "environment_state": (), "tasks": (), "reward": False, "success": False}
    return make_world(**schema)


@pytest.fixture(scope="session")
def pendulum_world() -> World:
    """What it imagines is noise, but its starts are the simulator's."""
    world = make_world(
        height=32,
        width=32,
        agent_pos=("cos", "sin", "speed"),
        environment_state=(),
        action=("torque",),
        action_low=(-2.0,),
        action_high=(2.0,),
        fps=20,
    )
    simulator, rng = Pendulum(32), np.random.default_rng(0)
    obs, _ = simulator.reset(seed=0)
    seen, actions = [obs], rng.uniform(-2, 2, (8, 1)).astype(np.float32)
    for action in actions[:-1]:
        seen.append(simulator.step(action)[0])
    starts = StartStates(
        pixels=np.stack([one["pixels"] for one in seen])[:, None],
        state=np.stack([one["agent_pos"] for one in seen]),
        action=actions,
        addresses=np.array([[0, frame] for frame in range(8)]),
    )
    return replace(world, starts=starts)


@pytest.fixture
def play() -> Callable[..., PlaySession]:
    """play(world, …): a session in which no prediction ends the episode."""

    def begin(world: World, **arguments) -> PlaySession:
        settings = {"horizon": 1000, "success_threshold": 1.0} | arguments.pop("settings", {})
        return PlaySession(world, settings, **arguments)

    return begin


@pytest.fixture
def target(world) -> Target:
    scalars = ["success_probability", "uncertainty"]
    marks = {"imagined": True, "world": "a/world", "world_sha256": "0" * 64}
    features = world_features(world.schema, scalars, videos=False)
    return Target(world.schema, features, scalars, {"command": "scd-play"}, marks, {"skill": 1}, False)


class Shelf(Recorder):
    """Takes episodes as a recorder does, and writes none."""

    def __init__(self, out: Path) -> None:
        self.out, self.unsaved, self.written = out, [], 0
        self.taken: list[Tape] = []

    def keep(self, tape: Tape, tell: Callable[[str, str], None]) -> None:
        self.taken.append(tape)
        tell("info", "kept")

    def close(self) -> None:
        self.written = len(self.taken)


@pytest.fixture
def shelf(tmp_path) -> Shelf:
    return Shelf(tmp_path / "played")
