"""What an action is to a hand: a position stays where it was put, all else goes back to rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from scd_world.play.controls import at_rest, controls_of
from scd_world.play.tape import Moment
from tests.scd_envs.conftest import make_world


def world_of(action: np.ndarray, state: np.ndarray, low: tuple, high: tuple, state_range: tuple):
    """A world with these start states, action (F, 2), state (F, 3), and ranges of both."""
    world = make_world(action_low=low, action_high=high)
    F = len(world.starts.addresses)
    starts = replace(world.starts, action=action[:F], state=state[:F])
    bounds = [torch.full((3,), float(bound)) for bound in state_range]
    return replace(
        world, starts=starts, stats=replace(world.stats, state_low=bounds[0], state_high=bounds[1])
    )


def test_an_action_that_the_robot_follows_is_a_position():
    rng = np.random.default_rng(0)
    state = rng.uniform(0, 100, (50, 3)).astype(np.float32)
    action = state[:, [1, 0]] + rng.normal(0, 5, (50, 2)).astype(np.float32)  # x is told by the second number
    controls = controls_of(world_of(action, state, (0.0, 0.0), (100.0, 100.0), (0, 100)))
    assert [control.follower for control in controls] == [1, 0]
    start = Moment((), np.array([20, 130, 0], np.float32))
    assert at_rest(controls, start) == [100, 20]  # where the robot is, as far as an action can say it
    later = replace(start, action=np.array([7, 8], np.float32))
    assert at_rest(controls, later) == [7, 8]


def test_an_action_of_another_range_or_of_its_own_will_is_none():
    rng = np.random.default_rng(0)
    state = rng.uniform(-1, 1, (50, 3)).astype(np.float32)
    small = (0.1 * state[:, :2]).astype(np.float32)  # goes with the state, in other units
    assert controls_of(world_of(small, state, (-0.1, -0.1), (0.1, 0.1), (-1, 1)))[0].follower is None
    free = rng.uniform(-1, 1, (50, 2)).astype(np.float32)
    controls = controls_of(world_of(free, state, (-1.0, 0.5), (1.0, 1.5), (-1, 1)))
    assert [control.follower for control in controls] == [None, None]
    assert [control.rest for control in controls] == [0, 1]  # nothing, or the middle of what is never nothing


def test_what_never_moved_is_marked(world):
    controls = controls_of(make_world(action_low=(-1.0, 0.5), action_high=(1.0, 0.5)))
    assert [control.constant for control in controls] == [False, True]
    assert all(control.low < control.high for control in controls)
