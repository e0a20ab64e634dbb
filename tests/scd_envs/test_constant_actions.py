"""An action that never moved in the recordings has a width that does no harm, and means its one value."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.wrappers.vector import RescaleAction as RescaleActions

import scd_policies
from scd_envs import spaces
from scd_envs.vector_env import WorldVectorEnv
from scd_envs.world_env import WorldEnv
from scd_policies.rollout import rollout

FIXED = {"action_low": (-1.0, -1.5), "action_high": (1.0, -1.5)}
ENDLESS = {"success_threshold": 1.0, "horizon": 1000}


@pytest.fixture(scope="module")
def fixed(build_world):
    """A world whose second action was always -1.5."""
    return build_world(**FIXED)


def test_actions_can_be_rescaled(fixed):
    env = gymnasium.wrappers.RescaleAction(
        gymnasium.make("scd_world/World-v0", world=fixed, **ENDLESS), -1.0, 1.0
    )
    envs = RescaleActions(WorldVectorEnv(fixed, 2, **ENDLESS), -1.0, 1.0)
    env.reset(seed=0), envs.reset(seed=0)
    for corner in ([-1, -1], [1, 1], [0.3, -0.7]):
        obs, *_ = env.step(np.array(corner, np.float32))
        many, *_ = envs.step(np.array([corner] * 2, np.float32))
        assert all(np.isfinite(array).all() for array in (*obs.values(), *many.values()))


def test_gymnasiums_checker_finds_nothing(fixed):
    check_env(WorldEnv(fixed), skip_render_check=True)


def test_whatever_is_sent_there_is_the_recorded_value(fixed):
    space, steps = spaces.action_space(fixed.schema), []
    for value in (space.low[1], -1.5, space.high[1]):
        env = WorldEnv(fixed, **ENDLESS)
        env.reset(seed=0)
        steps.append(env.step(np.array([0.5, value], np.float32)))
    assert data_equivalence(steps[0], steps[1], exact=True)
    assert data_equivalence(steps[0], steps[2], exact=True)


def test_what_lies_far_from_it_is_a_mistake_or_clipped(fixed):
    env = WorldEnv(fixed, **ENDLESS)
    env.reset(seed=0)
    with pytest.raises(
        ValueError, match=r"dimension 1 \('dy'\): .* range is \[-1\.5, -1\.5\].*3 lies far outside"
    ):
        env.step(np.array([0.5, 3.0]))
    expected = env.step(np.array([0.5, -1.5]))
    env = WorldEnv(fixed, clip_actions=True, **ENDLESS)
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="far outside"):
        assert data_equivalence(expected, env.step(np.array([0.5, 3.0])), exact=True)


def test_a_policy_walks_inside_and_is_recorded_as_the_world_took_it(fixed):
    """Recorded as it was sent, noise would be learnt from as if it had moved something."""
    envs = WorldVectorEnv(fixed, 2, **ENDLESS)
    policy = scd_policies.make("random_walk", envs.single_action_space)
    played = rollout(envs, policy, seeds=range(2), max_steps=5)
    sent = np.asarray(played.action, np.float64)
    assert sent[..., 1].std() > 0
    taken = spaces.taken_action(sent, fixed.schema, clip=False)
    np.testing.assert_array_equal(taken[..., 1], np.float32(-1.5))
    np.testing.assert_array_equal(taken[..., 0], sent[..., 0].astype(np.float32))


def test_it_is_said_once_in_one_line(build_world, caplog):
    world = build_world(action=("elbow", "gripper"), **FIXED)
    for _ in range(2):
        metadata = [WorldEnv(world).metadata, WorldVectorEnv(world, 2).metadata]
    line = (
        "1 of 2 actions never moved in the recordings (gripper): what is sent there is taken for the recorded"
    )
    assert [record.message.startswith(line) for record in caplog.records] == [True]
    assert [found["constant_actions"] for found in metadata] == [{"gripper": -1.5}] * 2


def test_lerobots_plug_in_has_the_same_space(fixed, tmp_path):
    plug_in = pytest.importorskip("lerobot_env_scd_world", reason="LeRobot is not installed")
    config = plug_in.WorldEnvConfig(world=str(fixed.save(tmp_path / "world")), device="cpu")
    (envs,) = config.create_envs(2)["scd_world"].values()
    assert envs.single_action_space == spaces.action_space(fixed.schema)
    assert (envs.single_action_space.low < envs.single_action_space.high).all()
