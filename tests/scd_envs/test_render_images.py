"""`render_images=False` leaves the images out, and nothing else changes."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from scd_envs.vector_env import WorldVectorEnv
from scd_envs.world_env import WorldEnv
from scd_world.prior.config import PriorConfig

BLIND = {"render_images": False}
ENDS = {"horizon": 5, "max_uncertainty": 0.02}  # some rows are cut off by the one, some by the other


@pytest.fixture(scope="module")
def told(build_world):
    """A world that is told where things are: its heads add nothing to what the state prior says."""
    world = build_world()
    for parameter in world.model.core.heads.mlp[-1].parameters():
        parameter.zero_()
    return world


def without_images(obs):
    return {key: value for key, value in obs.items() if key != "pixels"}


def assert_same(ours, theirs):
    """All but images, to the last bit."""
    if isinstance(theirs, dict):
        theirs = without_images(theirs)
        assert ours.keys() == theirs.keys()
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, np.ndarray) and theirs.dtype == object:
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    else:
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda m: m.name)
def test_state_reward_ends_and_infos_are_those_with_images(told, actions, mode):
    """A state that was stepped or restarted by another path would differ, if only in its uncertainty."""
    blind, seeing = (WorldVectorEnv(told, 6, autoreset_mode=mode, **ENDS, **more) for more in (BLIND, {}))
    assert "pixels" not in blind.single_observation_space.spaces
    for one, other in zip(blind.reset(seed=5), seeing.reset(seed=5), strict=True):
        assert_same(one, other)
    over = 0
    for action in actions[:14]:
        found, expected = blind.step(action), seeing.step(action)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
        over += int(found[3].sum())
        if mode is AutoresetMode.DISABLED and found[3].any():
            options = {"reset_mask": found[3], "episode": 8, "frame": 4}
            assert_same(blind.reset(options=options)[0], seeing.reset(options=options)[0])
    assert over > 3
    assert blind.observation_space.contains(blind._observation())


def test_it_is_a_gymnasium_environment_that_shows_nothing(told):
    env = WorldEnv(told, **BLIND)
    check_env(env, skip_render_check=True)
    env.reset(seed=0)
    assert env.render() is None
    assert gymnasium.make_vec("scd_world/World-v0", num_envs=2, world=told, **BLIND).render() is None


def test_no_image_is_drawn(told, actions, monkeypatch):
    def drawn(*_, **__):
        raise AssertionError("an image was encoded or drawn")

    for name in ("encode_step", "render"):
        monkeypatch.setattr(told.model.core, name, drawn)
    monkeypatch.setattr(told.codec, "encode", drawn)
    envs = WorldVectorEnv(told, 6, **BLIND, horizon=2)
    envs.reset(seed=0)
    for action in actions[:5]:
        envs.step(action)


@pytest.mark.parametrize("more", [{}, {"with_uncertainty": False}])
def test_a_saved_state_goes_on_as_before(told, actions, more):
    envs = WorldVectorEnv(told, 6, **BLIND, **more)
    envs.reset(seed=0)
    envs.step(actions[0])
    saved = envs.get_state()
    first = envs.step(actions[1])
    envs.set_state(saved)
    for one, other in zip(envs.step(actions[1]), first, strict=True):
        assert_same(one, other)
    with pytest.raises(ValueError, match="pixels"):
        WorldVectorEnv(told, 6).set_state(saved)


def test_without_uncertainty_the_rest_is_the_same(told, actions):
    plain, full = WorldVectorEnv(told, 6, **BLIND, with_uncertainty=False), WorldVectorEnv(told, 6, **BLIND)
    for envs in (plain, full):
        envs.reset(seed=0)
    for action in actions[:5]:
        (*found, info), (*expected, with_it) = plain.step(action), full.step(action)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
        assert with_it.keys() - info.keys() == {"uncertainty", "_uncertainty"}
    with pytest.raises(ValueError, match="with_uncertainty"):
        plain.set_attr("max_uncertainty", 0.1)
    assert plain.get_attr("max_uncertainty")[0] is None


def test_it_is_refused_where_images_count(world, told, build_world):
    with pytest.raises(ValueError, match="read state, reward or success off them"):
        WorldEnv(world, **BLIND)
    with pytest.raises(ValueError, match="no state prior"):
        WorldEnv(build_world(PriorConfig(kind="none")), **BLIND)
    for wrong, named in (
        ({"render_images": 0}, "True or False"),
        ({"with_uncertainty": False}, "render_images=False"),
        ({**BLIND, "compile": True}, "compile"),
        ({**BLIND, "with_uncertainty": False, "max_uncertainty": 0.1}, "max_uncertainty"),
    ):
        with pytest.raises(ValueError, match=named):
            WorldEnv(told, **wrong)
