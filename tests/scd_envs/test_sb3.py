"""Stable-Baselines3 takes the single environment as it is: its checker is silent, PPO learns in it."""

import warnings

import gymnasium
import numpy as np
import pytest
import torch

import scd_envs  # noqa: F401 (registers the ids)

pytest.importorskip(
    "stable_baselines3", reason="Stable-Baselines3 is an extra: pip install 'lerobot_env_scd_world[sb3]'"
)

ID = "scd_world/World-v0"


@pytest.mark.parametrize("cameras", [("top",), ("top", "wrist")], ids=["one camera", "two cameras"])
def test_their_checker_finds_nothing(build_world, cameras):
    from stable_baselines3.common.env_checker import check_env

    nested = len(cameras) > 1
    env = gymnasium.make(ID, world=build_world(cameras=cameras, height=40, width=48), horizon=8)
    env = gymnasium.wrappers.FlattenObservation(env) if nested else env  # SB3 knows no Dict inside a Dict
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env)


def test_ppo_runs_where_an_action_never_moved(build_world):
    """As the README has it. RescaleAction could not rescale what had no width."""
    from stable_baselines3 import PPO

    world = build_world(height=40, width=48, action_low=(-1.0, -1.5), action_high=(1.0, -1.5))
    env = gymnasium.wrappers.RescaleAction(gymnasium.make(ID, world=world, horizon=8), -1.0, 1.0)
    ppo = PPO("MultiInputPolicy", env, n_steps=16, batch_size=8, n_epochs=1, seed=0, device="cpu").learn(16)
    assert all(torch.isfinite(weight).all() for weight in ppo.policy.state_dict().values())


def test_ppo_learns_in_it(build_world):
    from stable_baselines3 import PPO

    env = gymnasium.make(ID, world=build_world(height=40, width=48), horizon=8)
    ppo = PPO("MultiInputPolicy", env, n_steps=16, batch_size=8, n_epochs=1, seed=0, device="cpu")
    before = {name: weight.clone() for name, weight in ppo.policy.state_dict().items()}
    ppo.learn(48)
    moved = [
        name for name, weight in ppo.policy.state_dict().items() if not torch.equal(weight, before[name])
    ]
    assert any("cnn" in name for name in moved)
    assert any("action_net" in name for name in moved)
    assert len(ppo.ep_info_buffer) >= 48 // 8  # whole episodes, as their Monitor saw them
    assert np.std([episode["r"] for episode in ppo.ep_info_buffer]) > 0
