"""The simulator beside the world: it is found by what it draws, and follows every jump of the episode."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scd_envs.simulators.pendulum import Pendulum
from scd_world.play.pictures import from_png
from scd_world.play.session import Refused
from scd_world.play.truth import find_simulator, open_simulator


def test_a_simulator_is_known_by_its_picture_of_a_start(pendulum_world, bare_world):
    assert find_simulator("auto", pendulum_world)[0] == "pendulum"
    assert find_simulator("none", pendulum_world)[0] is None
    assert find_simulator("auto", bare_world)[0] is None
    starts = pendulum_world.starts
    other = replace(pendulum_world, starts=replace(starts, pixels=255 - starts.pixels))
    assert find_simulator("auto", other)[0] is None
    name, why = find_simulator("pendulum", other)  # whoever names it has it, and is told
    assert name == "pendulum"
    assert "otherwise" in why


def test_numbers_of_the_same_sizes_but_another_robot_s_are_no_pendulum(pendulum_world):
    starts = pendulum_world.starts
    other = replace(pendulum_world, starts=replace(starts, state=3 * starts.state))
    assert find_simulator("auto", other)[0] is None


def test_a_simulator_with_other_actions_is_refused(world):
    with pytest.raises(ValueError, match="simulator=pendulum takes actions of shape"):
        find_simulator("pendulum", world)


def truth_after(start: np.ndarray, actions: list) -> np.ndarray:
    simulator = Pendulum(32)
    obs, _ = simulator.reset(seed=0, options={"agent_pos": start})
    for action in actions:
        obs = simulator.step(np.array(action, np.float32))[0]
    return obs["pixels"]


def test_it_takes_the_same_actions_from_the_same_start(pendulum_world, play):
    session = play(pendulum_world, simulator=open_simulator("pendulum", pendulum_world))
    start = session.moment.state
    torques = [[2.0], [-1.0], [0.5], [2.0]]
    for torque in torques:
        session.step(torque)

    def shown() -> np.ndarray:
        return from_png(session.moment.truth.pictures[0])

    assert np.array_equal(shown(), truth_after(start, torques))
    saved = session.save()
    session.look_at(1)
    assert np.array_equal(shown(), truth_after(start, torques[:1]))
    session.step([-2.0])
    assert np.array_equal(shown(), truth_after(start, [*torques[:1], [-2.0]]))
    session.compare(False)
    assert session.step([0.0]).truth is None
    session.compare(True)  # it catches up
    assert np.array_equal(shown(), truth_after(start, [*torques[:1], [-2.0], [0.0]]))
    session.reset(0, 5)
    assert np.array_equal(shown(), pendulum_world.starts.pixels[5, 0])
    session.load(saved.name)
    session.step([1.0])
    assert np.array_equal(shown(), truth_after(start, [*torques, [1.0]]))


def test_a_simulator_that_fails_is_switched_off_and_the_episode_goes_on(pendulum_world, play, monkeypatch):
    simulator = open_simulator("pendulum", pendulum_world)
    session = play(pendulum_world, simulator=simulator)
    session.step([1.0])
    monkeypatch.setattr(simulator.env, "step", lambda action: 1 / 0)
    with pytest.raises(Refused, match=r"the simulator failed, and is off now: ZeroDivisionError"):
        session.step([1.0])
    assert len(session.tape) == 2
    assert session.step([1.0]).truth is None


def test_a_simulator_that_refuses_the_first_start_is_off_and_the_page_opens(pendulum_world, play):
    class Narrow:
        def follow(self, state, actions):
            raise ValueError("outside the workspace")

        def close(self):
            pass

    session = play(pendulum_world, simulator=Narrow())
    assert not session.compares
    assert "outside the workspace" in session.unsaid
    session.step([1.0])
