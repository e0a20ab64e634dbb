"""The scripted pusher: expert at skill 1, hopeless at 0, each row on its own."""

import numpy as np
import pytest

from scd_policies import pusht_geometry

pytest.importorskip("gym_pusht")

from scd_envs import simulators
from scd_policies import make
from scd_policies.rollout import rollout
from tests.scd_policies.conftest import actions_of_rows


@pytest.fixture(scope="module")
def env():
    return simulators.make("pusht", size=8)


@pytest.mark.slow
def test_an_expert_brings_the_block_to_the_goal(env):
    done = rollout(env, make("scripted_pusht", env.action_space, skill=1.0), seeds=range(6))
    assert done.success.all()
    assert done.length.max() < 300


def test_without_skill_it_never_does(env):
    done = rollout(env, make("scripted_pusht", env.action_space, skill=0.0), seeds=range(4), max_steps=100)
    assert not done.success.any()
    assert done.obs["environment_state"].std(axis=1).max() > 5  # but it pushes


def test_a_row_of_a_batch_equals_that_episode_alone(env):
    observed = [env.reset(seed=seed)[0] for seed in range(5)]
    batch = {key: np.stack([obs[key] for obs in observed]) for key in observed[0]}
    actions_of_rows(lambda: make("scripted_pusht", env.action_space, skill=0.5), batch)


def test_a_push_turns_the_block_as_the_twist_says(env):
    """Guards the geometry: the frame of the keypoints, the center of gravity, the inertia, the signs."""
    contacts = pusht_geometry.contact_points()
    for index in range(0, len(contacts.point), 9):
        start = np.array([256.0, 256.0]) + pusht_geometry.KEYPOINTS  # the block upright in the middle
        disc = 256.0 + contacts.disc(0.5)[index]
        env.reset(seed=0, options={"agent_pos": disc, "environment_state": start.ravel()})
        target = 256.0 + contacts.disc(-6.0)[index]
        for _ in range(15):
            obs, *_ = env.step(target)
        goes = obs["environment_state"].reshape(8, 2) - start
        # Pushed 6 px deep (the disc's way less the gap): the impulse is depth / |twist|².
        depth = 6.0 / (contacts.twist[index] @ contacts.twist[index])
        expected = pusht_geometry.keypoint_displacement(depth * contacts.twist[index : index + 1])[0]
        np.testing.assert_allclose(goes, expected, atol=1.0)


def test_it_says_what_it_needs(env):
    with pytest.raises(ValueError, match="skill"):
        make("scripted_pusht", env.action_space, skill=2)
    policy = make("scripted_pusht", env.action_space)
    policy.reset([0])
    with pytest.raises(ValueError, match="environment_state"):
        policy.act({"agent_pos": np.zeros((1, 2))})
