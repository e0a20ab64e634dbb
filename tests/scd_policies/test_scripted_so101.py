"""The scripted SO-101 without its simulator: geometry, each row on its own, what it needs."""

import numpy as np
import pytest
from gymnasium import spaces

from scd_policies import make
from scd_policies.so101_kinematics import fingertips, joints_above
from tests.scd_policies.conftest import actions_of_rows

BOX = spaces.Box(-160, 160, (6,), np.float32)
HOME = np.array([0, -75, 60, 75, 90, 60], np.float32)


def observation(rng, rows):
    blocks = np.column_stack([rng.uniform(0.16, 0.27, rows), rng.uniform(-0.09, 0.09, rows)])
    rest = np.tile([0.02, 1, 0, 0, 0], (rows, 1))
    state = np.hstack([blocks, rest]).astype(np.float32)
    return {"agent_pos": np.tile(HOME, (rows, 1)), "environment_state": state}


def test_the_joints_above_a_point_bring_the_fingertips_there():
    rng = np.random.default_rng(0)
    points = rng.uniform([0.15, -0.1, 0.02], [0.27, 0.1, 0.08], (200, 3))
    joints = joints_above(points)
    np.testing.assert_allclose(fingertips(joints), points, atol=1e-6)
    np.testing.assert_allclose(joints[:, 1:4].sum(1), 90, atol=1e-6)  # the hand points straight down
    assert np.isfinite(joints_above(np.array([2.0, 0.0, 0.5]))).all()  # out of reach


def test_a_row_of_a_batch_equals_that_episode_alone():
    obs = observation(np.random.default_rng(1), 5)
    actions = actions_of_rows(lambda: make("scripted_so101", BOX, skill=0.5), obs)
    assert np.ptp(actions[0][:, 0]) > 1  # the rows differ


def play_servos_that_obey(skill):
    """An arm that is at once where it was told to be, and a block that stays: the hand's path (T, 3)."""
    obs = observation(np.random.default_rng(2), 1)
    policy = make("scripted_so101", BOX, skill=skill)
    policy.reset([3])
    path, gripper = [], []
    for _ in range(30):
        action = policy.act(obs)
        obs["agent_pos"] = action
        path.append(fingertips(action[0]) - obs["environment_state"][0, :3])
        gripper.append(action[0, 5])
    return np.array(path), np.array(gripper)


def test_it_closes_at_the_block_and_lifts():
    path, gripper = play_servos_that_obey(1.0)
    first = int(np.argmax(gripper < 1))
    assert first > 0
    assert np.abs(path[first]).max() < 0.015
    assert path[-1, 2] > 0.12
    assert (gripper[first:] == 0).all()


def test_without_skill_it_misses_the_block():
    path, gripper = play_servos_that_obey(0.0)
    assert np.linalg.norm(path[int(np.argmax(gripper < 1)), :2]) > 0.015


def test_the_blocks_position_alone_will_do():
    """As a network that looks at the picture gives it."""
    obs = observation(np.random.default_rng(4), 2)
    policy = make("scripted_so101", BOX)
    policy.reset([0, 1])
    whole = policy.act(obs)
    policy.reset([0, 1])
    position = {"environment_state": obs["environment_state"][:, :3]}
    np.testing.assert_array_equal(policy.act(obs | position), whole)


def test_it_says_what_it_needs():
    with pytest.raises(ValueError, match="skill"):
        make("scripted_so101", BOX, skill=2)
    with pytest.raises(ValueError, match="six joints"):
        make("scripted_so101", spaces.Box(-1, 1, (4,), np.float32))
    policy = make("scripted_so101", BOX)
    policy.reset([0])
    with pytest.raises(ValueError, match="environment_state"):
        policy.act({"agent_pos": np.zeros((1, 6))})
