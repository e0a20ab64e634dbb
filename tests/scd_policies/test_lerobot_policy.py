"""LeRobot checkpoints as policies: the actions that LeRobot itself would take, or an error that says why."""

import warnings

import gymnasium
import numpy as np
import pytest
import torch
import yaml

from scd_policies import make
from scd_policies.rollout import rollout

SHAPES = {
    "observation.images.top": (3, 8, 12),
    "observation.images.wrist": (3, 8, 12),
    "observation.state": (2,),
    "observation.environment_state": (1,),
    "action": (2,),
}
BOX = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
KINDS = ["act", "diffusion"]
ROWS = 3


@pytest.fixture(scope="module", params=KINDS)
def checkpoint(request, save_policy):
    if request.param == "diffusion":
        pytest.importorskip(
            "diffusers", reason="LeRobot's diffusion policy needs diffusers: lerobot[diffusion]"
        )
    return save_policy(request.param, SHAPES)


@pytest.fixture(scope="module")
def act(save_policy):
    return save_policy("act", SHAPES)


def observation(step: int, rows: int = ROWS, size: tuple[int, int] = (8, 12)) -> dict:
    rng = np.random.default_rng(step)
    images = {name: rng.integers(0, 256, (rows, *size, 3), np.uint8) for name in ("top", "wrist")}
    return {
        "pixels": images,
        "agent_pos": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "environment_state": rng.uniform(-1, 1, (rows, 1)).astype(np.float32),
    }


def played(policy, seeds, steps=7):
    policy.reset(seeds)
    return np.stack([policy.act(observation(step, len(seeds))) for step in range(steps)])


@pytest.mark.slow
def test_actions_are_lerobots_own(checkpoint):
    """Observation and action would be out of step, or in wrong units, if the adapter went its own way."""
    from lerobot.configs import PreTrainedConfig
    from lerobot.envs import preprocess_observation
    from lerobot.policies import get_policy_class, make_pre_post_processors

    config = PreTrainedConfig.from_pretrained(checkpoint)
    theirs = get_policy_class(config.type).from_pretrained(checkpoint)
    preprocess, postprocess = make_pre_post_processors(config, str(checkpoint))
    draws = np.random.default_rng([4, 5, 6, 1])
    for step, action in enumerate(played(make("lerobot", BOX, path=checkpoint), [4, 5, 6])):
        batch = preprocess_observation(observation(step)) | {"task": [""] * ROWS}
        torch.manual_seed(int(draws.integers(2**63 - 1)))
        with torch.inference_mode():
            expected = postprocess(theirs.select_action(preprocess(batch)))
        np.testing.assert_array_equal(action, expected.numpy())
    assert action.std() > 0.01  # random weights, but not constants


def test_an_episode_leaves_nothing_behind(checkpoint):
    """LeRobot's queue holds actions of the last episode, of another batch size too."""
    policy = make("lerobot", BOX, path=checkpoint)
    first = played(policy, [1, 2, 3])
    played(policy, [7, 8], steps=2)
    np.testing.assert_array_equal(played(policy, [1, 2, 3]), first)


def test_the_global_generator_stays_as_it_was(checkpoint):
    policy = make("lerobot", BOX, path=checkpoint)
    state = torch.get_rng_state()
    played(policy, [1])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
def test_rollout_in_a_world(world, act):
    env = gymnasium.make_vec(
        "scd_envs:scd_world/World-v0",
        num_envs=2,
        world=world,
        clip_actions=True,
        horizon=5,
        success_threshold=1.0,
    )
    policy = make("lerobot", env.single_action_space, path=act, task="push")
    runs = [rollout(env, policy, seeds=[3, 4, 5]) for _ in range(2)]
    np.testing.assert_array_equal(runs[0].action, runs[1].action)
    np.testing.assert_array_equal(runs[0].length, 5)


def mismatch(policy, obs) -> str:
    policy.reset([0] * ROWS)
    with pytest.raises(ValueError, match="does not fit") as raised:
        policy.act(obs)
    return str(raised.value)


def test_another_action_size_is_explained(act):
    other = make("lerobot", gymnasium.spaces.Box(-1, 1, (3,), np.float32), path=act)
    message = mismatch(other, observation(0))
    assert "action: the policy has (2,), the environment (3,)" in message
    assert "another robot" in message


def test_another_camera_name_is_explained_and_renamed(act):
    obs = observation(0)
    obs["pixels"] = {"ceiling_top": obs["pixels"]["wrist"], "hand_wrist": obs["pixels"]["top"]}
    message = mismatch(make("lerobot", BOX, path=act), obs)
    assert "observation.images.top: the policy has (3, 8, 12), the environment no such key" in message
    rename = {
        "observation.images.ceiling_top": "observation.images.top",
        "observation.images.hand_wrist": "observation.images.wrist",
    }
    for key, name in rename.items():
        assert f'"{key}": "{name}"' in message
    in_yaml = message.partition("list of policies ")[2].splitlines()[0]
    assert yaml.safe_load(in_yaml) == {"policy_kwargs": {"rename_map": rename}}
    policy = make("lerobot", BOX, path=act, rename_map=rename)
    policy.reset([0] * ROWS)
    assert policy.act(obs).shape == (ROWS, 2)


def test_another_image_size_is_explained_and_resized(act):
    large = observation(0, size=(16, 24))
    message = mismatch(make("lerobot", BOX, path=act), large)
    assert "observation.images.top: the policy has (3, 8, 12), the environment (3, 16, 24)" in message
    assert "resize=True" in message
    policy = make("lerobot", BOX, path=act, resize=True)
    policy.reset([0] * ROWS)
    flat = {name: np.full_like(image, 100) for name, image in large["pixels"].items()}
    action = policy.act(large | {"pixels": flat})
    policy.reset([0] * ROWS)
    small = {name: image[:, :8, :12] for name, image in flat.items()}
    np.testing.assert_allclose(action, policy.act(large | {"pixels": small}), atol=1e-5)


def test_a_letterboxed_image_is_cut_out_before_it_is_resized(act):
    """Else the policy would see the black bars, and its scene squeezed between them."""
    boxed = observation(0, size=(16, 40))
    views = {"top": (0, 8, 16, 24), "wrist": (2, 0, 12, 18)}
    cut = {
        camera: boxed["pixels"][camera][:, top : top + height, left : left + width]
        for camera, (top, left, height, width) in views.items()
    }
    acted = []
    for obs, known in ((boxed, views), (boxed | {"pixels": cut}, {})):
        policy = make("lerobot", BOX, path=act, resize=True, views=known)
        policy.reset([0] * ROWS)
        acted.append(policy.act(obs))
    np.testing.assert_allclose(*acted, atol=1e-6)


def test_other_proportions_than_the_cameras_own_are_warned_of(act):
    large = observation(0, size=(16, 24))
    policy = make("lerobot", BOX, path=act, resize=True, recorded={"top": (480, 480), "wrist": (480, 720)})
    policy.reset([0] * ROWS)
    with pytest.warns(UserWarning, match=r"top was recorded in \(480, 480\) .* shows things 50% wider"):
        policy.act(large)


def test_a_missing_state_is_explained(act):
    obs = observation(0)
    del obs["environment_state"]
    message = mismatch(make("lerobot", BOX, path=act), obs)
    assert "observation.environment_state: the policy has (1,), the environment no such key" in message


def test_a_rename_of_nothing_is_a_mistake(act):
    policy = make("lerobot", BOX, path=act, rename_map={"observation.images.tip": "observation.images.top"})
    policy.reset([0] * ROWS)
    with pytest.raises(ValueError, match=r"names observation\.images\.tip, but the environment has"):
        policy.act(observation(0))


def test_a_lone_camera_needs_no_name(save_policy):
    """An environment with one camera gives `pixels` without a name."""
    shapes = {key: shape for key, shape in SHAPES.items() if "wrist" not in key}
    one = save_policy("act", shapes)
    policy = make("lerobot", BOX, path=one)
    policy.reset([0] * ROWS)
    obs = observation(0)
    assert policy.act(obs | {"pixels": obs["pixels"]["top"]}).shape == (ROWS, 2)


def test_cameras_go_by_the_names_of_the_data(save_policy):
    """What a world learnt from knew them by these: a policy that was trained on it needs no rename."""
    keys = {"top": "observation.image", "wrist": "front_view"}
    shapes = {"observation.image": (3, 8, 12), "front_view": (3, 8, 12)}
    shapes |= {key: shape for key, shape in SHAPES.items() if ".images." not in key}
    path, obs = save_policy("act", shapes), observation(0)
    assert "front_view: the policy has" in mismatch(make("lerobot", BOX, path=path), obs)
    by_data = make("lerobot", BOX, path=path, camera_keys=keys)
    by_hand = make(
        "lerobot",
        BOX,
        path=path,
        rename_map={f"observation.images.{name}": key for name, key in keys.items()},
    )
    for policy in (by_data, by_hand):
        policy.reset([0] * ROWS)
    np.testing.assert_array_equal(by_data.act(obs), by_hand.act(obs))


@pytest.mark.parametrize("known", ["observation.image", "observation.images.ceiling"])
def test_a_rename_may_name_a_camera_as_lerobot_or_as_the_data_does(save_policy, known):
    shapes = {key: shape for key, shape in SHAPES.items() if "wrist" not in key}
    keys = {"ceiling": "observation.images.ceiling"}
    policy = make(
        "lerobot",
        BOX,
        path=save_policy("act", shapes),
        camera_keys=keys,
        rename_map={known: "observation.images.top"},
    )
    policy.reset([0] * ROWS)
    obs = observation(0)
    assert policy.act(obs | {"pixels": obs["pixels"]["top"]}).shape == (ROWS, 2)


def test_no_checkpoint_is_explained(tmp_path, act):
    with pytest.raises(FileNotFoundError, match="no policy at"):
        make("lerobot", BOX, path=tmp_path / "nowhere")
    last = tmp_path / "checkpoints" / "last" / "pretrained_model"
    last.mkdir(parents=True)
    (last / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=f"did you mean {last}"):
        make("lerobot", BOX, path=tmp_path)


def test_a_checkpoint_that_samples_proposes_plans_in_imagined_images(checkpoint, world):
    """It seeds its samples by the whole batch; a row that plans with it shall not depend on its neighbors.
    One that does not sample (ACT) is named."""
    settings = {"base": str(checkpoint), "n": 3, "horizon": 4, "execute": 4, "device": "cpu"}
    space = gymnasium.spaces.Box(np.float32([-2, 0]), np.float32([2, 512]))
    policy = make("best_of_n", space, world=world, **settings)

    def act(rows):
        policy.reset([7 + row for row in rows])
        obs = observation(0, rows=3)
        chosen = {key: obs[key][rows] for key in ("agent_pos", "environment_state")}
        return policy.act(chosen | {"pixels": {name: image[rows] for name, image in obs["pixels"].items()}})

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        together = act([0, 1, 2])
    samples = "diffusion" in str(checkpoint)
    assert any("does not sample" in str(warning.message) for warning in warned) != samples
    np.testing.assert_array_equal(together[1:2], act([1]))
    assert np.isfinite(policy.decision_info["plan_value"]).all()
