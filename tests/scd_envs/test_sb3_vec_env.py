"""Stable-Baselines3's vector environment over the batched one gives what its own gives of single ones."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence

import scd_envs  # noqa: F401 (registers the ids)

pytest.importorskip(
    "stable_baselines3", reason="Stable-Baselines3 is an extra: pip install 'lerobot_env_scd_world[sb3]'"
)

from stable_baselines3.common.vec_env import DummyVecEnv, VecCheckNan, VecMonitor, VecNormalize

from scd_envs.sb3 import WorldVecEnv

ID = "scd_world/World-v0"
ENDS = {"success_threshold": 0.93, "horizon": 6}  # some rows succeed before the horizon cuts them off
SAME_STEP = {"autoreset_mode": "SameStep"}


def make(world, num_envs=6, **kwargs) -> WorldVecEnv:
    return WorldVecEnv(gymnasium.make_vec(ID, num_envs=num_envs, world=world, **SAME_STEP, **ENDS | kwargs))


def assert_close(ours, theirs):
    """Pixels within one gray level, other values within 1e-4: rows of a batch differ by rounding."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            assert_close(ours[key], theirs[key])
    elif isinstance(theirs, np.ndarray):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        tolerance = 1 if ours.dtype == np.uint8 else 1e-4
        np.testing.assert_allclose(ours.astype(float), theirs.astype(float), rtol=0, atol=tolerance)
    else:
        assert type(ours) is type(theirs)
        assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.slow
def test_it_is_what_their_own_gives_of_single_environments(world, actions):
    """Observations, rewards, ends, infos with terminal_observation and TimeLimit.truncated, reset_infos."""
    ours = make(world)
    theirs = DummyVecEnv([lambda: gymnasium.make(ID, world=world, **ENDS).unwrapped] * 6)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    for venv in (ours, theirs):
        venv.seed(5)
    assert_close(ours.reset(), theirs.reset())
    cut = {True: 0, False: 0}
    for action in actions[:20]:
        (*mine, my_infos), (*others, their_infos) = ours.step(action), theirs.step(action)
        for one, other in zip(mine, others, strict=True):
            assert_close(one, other)
        for one, other in zip(my_infos, their_infos, strict=True):
            assert_close(one, other)
            if "terminal_observation" in other:
                cut[other["TimeLimit.truncated"]] += 1
        for one, other in zip(ours.reset_infos, theirs.reset_infos, strict=True):
            assert_close(one, other)
    assert min(cut.values()) > 1  # both kinds of end came


@pytest.mark.parametrize("cameras", [("top",), ("top", "wrist")], ids=["one camera", "two cameras"])
def test_it_steps_the_vector_environment_to_the_bit(build_world, actions, cameras):
    world = build_world(cameras=cameras)
    venv = make(world)
    envs = gymnasium.make_vec(ID, num_envs=6, world=world, **SAME_STEP, **ENDS)

    def flat(obs):
        pixels = obs["pixels"]
        several = {f"pixels/{name}": image for name, image in pixels.items()} if len(cameras) > 1 else {}
        return {**{k: v for k, v in obs.items() if k != "pixels" or not several}, **several}

    venv.seed(5)
    assert data_equivalence(venv.reset(), flat(envs.reset(seed=5)[0]), exact=True)
    ended = 0
    for action in actions[:14]:
        obs, rewards, over, infos = venv.step(action)
        theirs = envs.step(action)
        assert data_equivalence(obs, flat(theirs[0]), exact=True)
        assert obs.keys() == set(venv.observation_space.spaces)
        np.testing.assert_array_equal(rewards, theirs[1].astype(np.float32))
        np.testing.assert_array_equal(over, theirs[2] | theirs[3])
        for row in np.flatnonzero(over):
            last = infos[row]["terminal_observation"]
            assert data_equivalence(last, flat(theirs[4]["final_obs"][row]), exact=True)
            assert infos[row]["success_probability"] == theirs[4]["final_info"]["success_probability"][row]
            ended += 1
    assert ended > 2


def test_their_wrappers_take_it(world, actions):
    venv = VecNormalize(VecMonitor(make(world)), norm_obs_keys=["agent_pos"])
    venv = VecCheckNan(venv, raise_exception=True)
    venv.reset()
    ended = []
    for action in actions[:14]:
        _, _, _, infos = venv.step(action)
        ended += [info["episode"] for info in infos if "episode" in info]
    assert ended
    assert all(1 <= episode["l"] <= 6 for episode in ended)


def test_gymnasiums_statistics_of_episodes_are_those_of_theirs(world, actions):
    envs = gymnasium.make_vec(ID, num_envs=6, world=world, **SAME_STEP, **ENDS)
    venv = VecMonitor(WorldVecEnv(gymnasium.wrappers.vector.RecordEpisodeStatistics(envs)), info_keywords=())
    plain = VecMonitor(make(world))
    for one in (venv, plain):
        one.seed(5)
        one.reset()
    ended = 0
    for action in actions[:14]:
        over, infos = venv.venv.step(action)[2:]
        theirs = plain.step(action)[3]
        for row, (info, their) in enumerate(zip(infos, theirs, strict=True)):
            assert ("episode" in info) == ("episode" in their) == over[row]
            if over[row]:
                assert (info["episode"]["l"], info["episode"]["r"]) == (
                    their["episode"]["l"],
                    pytest.approx(their["episode"]["r"], abs=1e-5),
                )
                ended += 1
    assert ended > 2


def test_ppo_learns_from_rows_of_one_model(build_world):
    """As the documentation has it."""
    from stable_baselines3 import PPO

    world = build_world(height=40, width=48)
    envs = gymnasium.make_vec(ID, num_envs=4, world=world, **SAME_STEP, horizon=5)
    venv = VecMonitor(WorldVecEnv(gymnasium.wrappers.vector.RescaleAction(envs, -1.0, 1.0)))
    ppo = PPO("MultiInputPolicy", venv, n_steps=4, batch_size=16, n_epochs=1, seed=0, device="cpu")
    before = {name: weight.clone() for name, weight in ppo.policy.state_dict().items()}
    ppo.learn(48)  # three updates
    after = ppo.policy.state_dict()
    moved = [name for name, weight in after.items() if not torch.equal(weight, before[name])]
    assert any("cnn" in name for name in moved)
    assert all(torch.isfinite(weight).all() for weight in after.values())
    assert len(ppo.ep_info_buffer) >= 48 // 5 - 4


def test_equal_seeds_equal_bits_and_options_count_once(world, actions):
    venv = make(world)
    runs = []
    for _ in range(2):
        venv.seed(3)
        venv.set_options({"episode": 5, "frame": 2})
        runs.append([venv.reset()])
        assert [(i["start_episode"], i["start_frame"]) for i in venv.reset_infos] == [(5, 2)] * 6
        runs[-1] += [venv.step(action)[0] for action in actions[:3]]
    assert data_equivalence(runs[0], runs[1], exact=True)
    venv.reset()
    assert {info["start_frame"] for info in venv.reset_infos} == {0}
    venv.set_options([{"episode": e} for e in (3, 5, 8, 3, 5, 8)])
    venv.reset()
    assert [info["start_episode"] for info in venv.reset_infos] == [3, 5, 8, 3, 5, 8]
    venv.set_options([{"episode": 3}, *[{}] * 5])
    with pytest.raises(ValueError, match="same keys"):
        venv.reset()


def test_attributes_are_read_of_each_row_and_set_for_all(world, actions):
    venv = make(world)
    venv.seed(11)
    venv.reset()
    assert venv.get_attr("horizon", indices=[1, 2]) == [6, 6]
    assert venv.get_attr("task_description", 0) == ["push the block"]
    assert venv.get_attr("np_random_seed") == [11, 12, 13, 14, 15, 16]
    assert venv.env_method("get_wrapper_attr", "horizon", indices=0) == [6]
    assert [image.shape for image in venv.env_method("render", indices=[0, 3])] == [(16, 24, 3)] * 2
    assert venv.render().dtype == np.uint8  # all rows in one image
    assert venv.has_attr("horizon")
    assert not venv.has_attr("kinematics")
    venv.set_attr("horizon", 2)
    venv.step(actions[0])
    assert venv.step(actions[1])[2].all()
    for change, error, message in (
        (lambda: venv.set_attr("horizon", 0), ValueError, "horizon must be"),
        (lambda: venv.set_attr("horizon", 3, indices=[0]), ValueError, r"all rows share one model.*\[0\]"),
        (lambda: venv.set_attr("world", 3), AttributeError, "num_steps, horizon.*got 'world'"),
        (lambda: venv.env_method("fly"), AttributeError, "no method 'fly'"),
    ):
        with pytest.raises(error, match=message):
            change()
    assert venv.get_attr("horizon") == [2] * 6


def test_set_attr_of_the_vector_environment_takes_one_value_or_one_per_row(world, build_world):
    from scd_world.prior.config import PriorConfig

    envs = gymnasium.make_vec(ID, num_envs=3, world=world)
    envs.set_attr("success_threshold", [0.7, 0.7, 0.7])
    assert envs.get_attr("success_threshold") == (0.7,) * 3
    assert envs.get_attr("horizon") == (20,) * 3  # the data's own, where none was given
    for values in ([0.7, 0.7], [0.7, 0.7, 0.8]):
        with pytest.raises(ValueError, match="one value for all 3 rows"):
            envs.set_attr("success_threshold", values)
    without = gymnasium.make_vec(ID, num_envs=2, world=build_world(prior=PriorConfig(kind="none")))
    with pytest.raises(ValueError, match="predicts no uncertainty"):
        without.set_attr("max_uncertainty", 0.1)
    assert without.get_attr("max_uncertainty") == (None, None)


def test_wrappers_of_all_rows_are_seen(world):
    envs = gymnasium.make_vec(ID, num_envs=2, world=world, **SAME_STEP)
    rescaled = WorldVecEnv(gymnasium.wrappers.vector.RescaleAction(envs, -1.0, 1.0))
    assert rescaled.env_is_wrapped(gymnasium.wrappers.vector.RescaleAction) == [True, True]
    assert rescaled.env_is_wrapped(gymnasium.wrappers.RescaleAction, indices=1) == [False]
    assert (rescaled.get_attr("action_space", 0)[0].low == -1).all()


def test_other_environments_are_refused_with_the_cure(world):
    with pytest.raises(TypeError, match="make_vec"):
        WorldVecEnv(gymnasium.make_vec("CartPole-v1", num_envs=2))
    for settings in ({}, {**SAME_STEP, "observations": "torch"}):
        with pytest.raises(ValueError, match="needs autoreset_mode='SameStep' and observations='numpy'"):
            WorldVecEnv(gymnasium.make_vec(ID, num_envs=2, world=world, **settings))
