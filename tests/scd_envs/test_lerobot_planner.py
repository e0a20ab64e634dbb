"""A planner as one of LeRobot's policies: its evaluation plays what our own rollout plays."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

import scd_envs
import scd_policies
from scd_envs.vector_env import WorldVectorEnv
from scd_policies.rollout import rollout

WORLD = str(scd_envs.PUSHT_WORLD)
SETTINGS = {
    "icem": {"horizon": 4, "execute": 2, "samples": 4, "iterations": 1, "elites": 2},
    "gradient": {"horizon": 3, "execute": 2, "samples": 2, "iterations": 2},
}


def config_of(**values):
    from lerobot_env_scd_world import ScdPlannerConfig

    return ScdPlannerConfig(device="cpu", **values)


@pytest.mark.slow
@pytest.mark.parametrize("planner", SETTINGS)
def test_lerobots_evaluation_plays_what_our_rollout_plays(planner, tmp_path, monkeypatch):
    from lerobot.scripts import lerobot_eval as module

    command = [
        "--policy.type=scd_planner", f"--policy.planner={planner}", f"--policy.world={WORLD}",
        f"--policy.settings={json.dumps(SETTINGS[planner])}", "--policy.seed=7", "--policy.device=cpu",
        "--env.type=scd_world", f"--env.world={WORLD}", "--env.horizon=5", "--env.device=cpu",
        "--eval.n_episodes=4", "--eval.batch_size=2",
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lerobot-eval", *command])
    monkeypatch.setattr(module, "init_logging", lambda: None)
    module.main()
    (file,) = tmp_path.glob("outputs/eval/*/*/eval_info.json")
    (task,) = json.loads(file.read_text())["per_task"]

    env = WorldVectorEnv(WORLD, 2, autoreset_mode=AutoresetMode.DISABLED, clip_actions=True, horizon=5)
    policy = scd_policies.make(planner, env.single_action_space, world=WORLD, **SETTINGS[planner])
    ours = rollout(env, policy, seeds=range(1000, 1004), policy_seeds=range(7, 11))
    assert len(set(ours.reward.sum(1).round(6))) == 4
    np.testing.assert_allclose(task["metrics"]["sum_rewards"], ours.reward.sum(1), rtol=1e-5)


@pytest.mark.parametrize("recorded_names", [False, True])
def test_what_lerobot_makes_of_an_observation_is_undone(build_world, recorded_names):
    """Two cameras, to the last bit: a plan starts from exactly what was shown."""
    from lerobot.envs import preprocess_observation

    from lerobot_env_scd_world.modeling_scd_planner import to_observation

    world = build_world(cameras=("top", "wrist"))
    obs, _ = WorldVectorEnv(world, 3, autoreset_mode=AutoresetMode.DISABLED).reset(seed=0)
    batch = preprocess_observation(obs)
    schema = replace(world.schema, camera_keys=("observation.images.first", "observation.images.second"))
    if recorded_names:
        batch = {schema.lerobot_keys.get(key.rpartition(".")[2], key): value for key, value in batch.items()}
    again = to_observation(batch, schema)
    assert set(again) == {"pixels", "agent_pos", "environment_state"}
    for camera in schema.cameras:
        np.testing.assert_array_equal(again["pixels"][camera], obs["pixels"][camera])
    for key in ("agent_pos", "environment_state"):
        np.testing.assert_array_equal(again[key], obs[key].astype(np.float32))
    with pytest.raises(ValueError, match=r"needs .*observation.state.*; got"):
        to_observation({key: value for key, value in batch.items() if "image" in key}, schema)
    blind = replace(schema, agent_pos=(), environment_state=())
    again = to_observation({key: value for key, value in batch.items() if "image" in key}, blind)
    assert set(again) == {"pixels"}


def test_wrong_settings_are_named():
    from draccus import ParsingError
    from lerobot.configs import FeatureType, PolicyFeature

    from lerobot_env_scd_world.modeling_scd_planner import ScdPlannerPolicy

    with pytest.raises(ParsingError, match=r"--policy\.world="):
        config_of()
    with pytest.raises(ParsingError, match=r"cem.*best_of_n, icem, mppi, gradient"):
        config_of(world=WORLD, planner="cem")
    with pytest.raises(ValueError, match="name one, base="):
        ScdPlannerPolicy(config_of(world=WORLD))
    config = config_of(world=WORLD, planner="icem")
    config.output_features = {"action": PolicyFeature(FeatureType.ACTION, (7,))}
    with pytest.raises(ValueError, match=r"\(7,\), and .* \(2,\)"):
        ScdPlannerPolicy(config)
    policy = ScdPlannerPolicy(config_of(world=WORLD, planner="icem"))
    with pytest.raises(NotImplementedError, match="scd-train"):
        policy.forward({})


def test_new_episodes_have_new_seeds():
    """LeRobot tells a policy no seed: two batches of equal starts must not be planned alike."""
    from lerobot.envs import preprocess_observation

    from lerobot_env_scd_world.modeling_scd_planner import ScdPlannerPolicy

    obs, _ = WorldVectorEnv(WORLD, 2, autoreset_mode=AutoresetMode.DISABLED).reset(seed=[5, 5])
    batch = preprocess_observation(obs)
    policy = ScdPlannerPolicy(config_of(world=WORLD, planner="icem", settings=SETTINGS["icem"]))
    taken = []
    for _ in range(2):
        policy.reset()
        with torch.inference_mode():
            taken.append(policy.select_action(batch))
    assert len({tuple(row.tolist()) for row in torch.cat(taken)}) > 2  # staying at rest is a plan as well
    assert not torch.equal(*taken)
    assert policy.predict_action_chunk(batch).shape == (2, 1, 2)
