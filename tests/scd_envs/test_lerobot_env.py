"""LeRobot's own commands in a world: their scores are our episodes' scores; errors say what to do."""

import json
import os
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import av
import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

import scd_policies
from scd_envs.vector_env import WorldVectorEnv
from scd_policies.rollout import rollout

ENDS = {
    "success_threshold": 0.93,
    "horizon": 12,
}  # rows end at different steps, by success and by the horizon
BLOCK = ("block_x", "block_y")  # LeRobot loses the axis of a state of one number
SEEDS = range(1000, 1004)  # LeRobot's evaluation begins at 1000 by default
TWO = {
    "observation.images.top": (3, 16, 24),
    "observation.images.wrist": (3, 16, 24),
    "observation.state": (2,),
    "observation.environment_state": (2,),
    "action": (2,),
}


@pytest.fixture(scope="module")
def two_cameras(build_world):
    return build_world(cameras=("top", "wrist"), environment_state=BLOCK)


@pytest.fixture(scope="module")
def folder(two_cameras, tmp_path_factory):
    return two_cameras.save(tmp_path_factory.mktemp("runs") / "world")


@pytest.fixture(scope="module")
def act(save_policy):
    return save_policy("act", TWO)


@pytest.fixture(scope="module")
def diffusion(save_policy):
    pytest.importorskip("diffusers", reason="LeRobot's diffusion policy needs diffusers: lerobot[diffusion]")
    return save_policy("diffusion", TWO)


@pytest.fixture(scope="module")
def ends(two_cameras, act) -> dict:
    """Settings with which some of the four episodes end by success and others by the horizon."""
    env = WorldVectorEnv(two_cameras, 4, clip_actions=True, success_threshold=1.0, horizon=13)
    policy = scd_policies.make("lerobot", env.single_action_space, path=act)
    obs, _ = env.reset(seed=SEEDS[0])
    policy.reset(SEEDS)
    probabilities = []
    for _ in range(12):
        obs, _, _, _, info = env.step(policy.act(obs))
        probabilities.append(info["success_probability"])
    best = np.sort(np.max(probabilities, axis=0))
    gap = np.diff(best).argmax()  # between two episodes that differ clearly
    return {"success_threshold": float(best[gap : gap + 2].mean()), "horizon": 12}


def config_of(world, **values):
    from lerobot_env_scd_world import WorldEnvConfig

    return WorldEnvConfig(world=str(world), **values)


def flags(world, policy) -> list[str]:
    return [
        "--env.type=scd_world",
        f"--env.world={world}",
        f"--policy.path={policy}",
        "--eval.n_episodes=4",
        "--eval.batch_size=2",
    ]


def lerobot_eval(monkeypatch, folder: Path, *arguments: str) -> dict:
    """The command in this process, which has paid for importing LeRobot already."""
    from lerobot.scripts import lerobot_eval as module

    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["lerobot-eval", *arguments])
    monkeypatch.setattr(module, "init_logging", lambda: None)  # it would stay for all tests after this one
    module.main()
    return eval_info(folder)


def eval_info(folder: Path) -> dict:
    (file,) = folder.glob("outputs/eval/*/*/eval_info.json")
    return json.loads(file.read_text())


def assert_scores(info: dict, ours) -> None:
    """Returns, successes and videos of LeRobot's evaluation, against our own rollout of the same episodes."""
    (task,) = info["per_task"]
    assert (task["task_group"], task["task_id"]) == ("scd_world", 0)
    metrics = task["metrics"]
    np.testing.assert_allclose(metrics["sum_rewards"], ours.reward.sum(1), rtol=1e-6)
    np.testing.assert_array_equal(metrics["successes"], ours.success)
    assert info["overall"]["pc_success"] == 100 * ours.success.mean()
    assert [frames_in(path) for path in metrics["video_paths"]] == ours.length.tolist()


def frames_in(video: str) -> int:
    with av.open(video) as container:
        assert (container.streams.video[0].height, container.streams.video[0].width) == (16, 48)
        return sum(1 for _ in container.decode(video=0))


def our_rollout(world, policy, **settings):
    env = WorldVectorEnv(world, 2, autoreset_mode=AutoresetMode.DISABLED, clip_actions=True, **settings)
    acting = scd_policies.make("lerobot", env.single_action_space, path=policy, task="push the block")
    return rollout(env, acting, seeds=SEEDS)


@pytest.mark.slow
def test_the_command_needs_no_other_flag(two_cameras, folder, act, tmp_path):
    """A fresh process: it must find the plug-in by the distribution's name, and need no network."""
    command = [str(Path(sys.executable).with_name("lerobot-eval")), *flags(folder, act)]
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=offline, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Could not import third-party plugin" not in done.stderr + done.stdout
    info = eval_info(tmp_path)
    for task in info["per_task"]:
        paths = task["metrics"]["video_paths"]
        task["metrics"]["video_paths"] = [str(tmp_path / path) for path in paths]
    assert_scores(info, our_rollout(two_cameras, act))


@pytest.mark.slow
def test_scores_are_exact_when_rows_end_at_different_steps(
    two_cameras, folder, act, ends, tmp_path, monkeypatch
):
    ours = our_rollout(two_cameras, act, **ends)
    assert len(set(ours.length.tolist())) > 1
    assert 0 < ours.success.mean() < 1
    settings = [f"--env.{name}={value}" for name, value in ends.items()]
    assert_scores(lerobot_eval(monkeypatch, tmp_path, *flags(folder, act), *settings), ours)


@pytest.mark.slow
def test_a_diffusion_policys_scores_are_those_of_its_actions(
    two_cameras, folder, diffusion, ends, tmp_path, monkeypatch
):
    """Its actions are random: those that LeRobot took are replayed here."""
    from lerobot.scripts import lerobot_eval as module

    taken, rolled = [], module.rollout
    monkeypatch.setattr(module, "rollout", lambda **how: taken.append(rolled(**how)) or taken[-1])
    settings = [f"--env.{name}={value}" for name, value in ends.items()]
    info = lerobot_eval(monkeypatch, tmp_path, *flags(folder, diffusion), *settings)

    env = WorldVectorEnv(two_cameras, 2, autoreset_mode=AutoresetMode.DISABLED, clip_actions=True, **ends)
    actions = [row.numpy() for batch in taken for row in batch["action"]]
    replay = scd_policies.make("replay", env.single_action_space, actions=actions)
    assert_scores(info, rollout(env, replay, seeds=SEEDS, policy_seeds=range(4)))


def lerobot_train(monkeypatch, folder: Path, world: Path, *arguments: str) -> None:
    """Two updates of a tiny ACT on the dataset in `folder`, an evaluation after each."""
    from lerobot.scripts import lerobot_train as module

    monkeypatch.chdir(folder)
    monkeypatch.setattr(module, "init_logging", lambda **how: None)
    data = ["--dataset.repo_id=tiny", f"--dataset.root={folder / 'dataset'}", "--num_workers=0"]
    policy = ["--policy.type=act", "--policy.dim_model=16", "--policy.n_heads=2", "--policy.use_vae=false"]
    policy += [
        "--policy.chunk_size=3",
        "--policy.n_action_steps=3",
        "--policy.pretrained_backbone_weights=null",
    ]
    policy += ["--policy.push_to_hub=false", "--policy.device=cpu"]
    env = ["--env.type=scd_world", f"--env.world={world}", "--env.horizon=4", "--env_eval_freq=1"]
    often = ["--eval.n_episodes=2", "--eval.batch_size=2", "--steps=2", "--batch_size=2", "--output_dir=run"]
    monkeypatch.setattr(sys, "argv", ["lerobot-train", *data, *policy, *env, *often, *arguments])
    module.main()


@pytest.mark.slow
def test_training_evaluates_in_the_world(folder, tmp_path, monkeypatch):
    record(tmp_path / "dataset")
    lerobot_train(monkeypatch, tmp_path, folder)
    for step in ("1", "2"):
        videos = list(tmp_path.glob(f"run/eval/videos_step_*{step}/**/*.mp4"))
        assert len(videos) == 2


@pytest.mark.slow
def test_a_dataset_that_does_not_fit_is_refused_before_training_and_the_cure_works(
    folder, tmp_path, monkeypatch, capsys
):
    """LeRobot would train for hours and then evaluate on images of another size, without a word."""
    larger = {key: (3, 32, 48) if len(shape) == 3 else shape for key, shape in TWO.items()}
    record(tmp_path / "dataset", larger)
    with pytest.raises(SystemExit):
        lerobot_train(monkeypatch, tmp_path, folder)
    printed, cure = capsys.readouterr(), ("--env.observation_height=32", "--env.observation_width=48")
    output = printed.out + printed.err
    assert "observation.images.top: the policy has (3, 32, 48), the environment (3, 16, 24)" in output
    assert " ".join(cure) in output
    assert not (tmp_path / "run").exists()
    lerobot_train(monkeypatch, tmp_path, folder, *cure)
    assert len(list(tmp_path.glob("run/eval/**/*.mp4"))) == 4


@pytest.mark.slow
def test_training_on_the_worlds_own_dataset_needs_no_renaming(build_world, tmp_path, monkeypatch):
    """The world of the lone camera `observation.images.image` once called it `observation.image`."""
    keys = ("observation.image", "observation.images.wrist")
    world = build_world(cameras=("image", "wrist"), camera_keys=keys, environment_state=BLOCK)
    low = {key: shape for key, shape in TWO.items() if ".images." not in key}
    record(tmp_path / "dataset", dict.fromkeys(keys, (3, 16, 24)) | low)
    lerobot_train(monkeypatch, tmp_path, world.save(tmp_path / "world"))
    assert len(list(tmp_path.glob("run/eval/**/*.mp4"))) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        {"observation.images.wrist": None, "observation.images.hand_wrist": (3, 16, 24)},
        {"observation.images.side": (3, 16, 24), "observation.effort": (2,)},
    ],
    ids=["another name", "more than the world has"],
)
def test_what_is_printed_where_a_dataset_does_not_fit_cures_it(
    folder, tmp_path, monkeypatch, capsys, changed
):
    """LeRobot itself takes no --rename_map for a policy that is trained from nothing."""
    shapes = {key: shape for key, shape in (TWO | changed).items() if shape}
    record(tmp_path / "dataset", shapes)
    with pytest.raises(SystemExit):
        lerobot_train(monkeypatch, tmp_path, folder)
    printed = capsys.readouterr()
    cures = [line for line in (printed.out + printed.err).splitlines() if ": --" in line]
    assert len(cures) == 1
    lerobot_train(monkeypatch, tmp_path, folder, *shlex.split(cures[0].partition(": ")[2]))
    assert len(list(tmp_path.glob("run/eval/**/*.mp4"))) == 4


def record(root: Path, shapes: dict[str, tuple[int, ...]] = TWO) -> None:
    """Two short episodes of what the world was made from, as LeRobot records them."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    size = ["height", "width", "channels"]
    features = {
        key: {"dtype": "image", "shape": (*shape[1:], 3), "names": size}
        if len(shape) == 3
        else {"dtype": "float32", "shape": shape, "names": None}
        for key, shape in shapes.items()
    }
    rng = np.random.default_rng(0)
    dataset = LeRobotDataset.create("tiny", fps=10, features=features, root=root, use_videos=False)
    for _ in range(2):
        for _ in range(6):
            values = {key: rng.uniform(0, 1, feature["shape"]) for key, feature in features.items()}
            frame = {key: value.astype(np.float32) for key, value in values.items()}
            dataset.add_frame(frame | {"task": "push the block"})
        dataset.save_episode()
    dataset.finalize()


@pytest.mark.slow
def test_same_step_autoreset_would_leak_the_next_episode(two_cameras, act, ends):
    """The comparison of scores can fail: LeRobot counts one step too many, which freezing makes harmless."""
    from lerobot.policies import get_policy_class, make_pre_post_processors
    from lerobot.processor import PolicyProcessorPipeline
    from lerobot.scripts.lerobot_eval import eval_policy

    policy = get_policy_class("act").from_pretrained(act)
    before, after = make_pre_post_processors(policy.config, str(act))
    idle = PolicyProcessorPipeline(steps=[])
    ours = our_rollout(two_cameras, act, **ends)

    def returns(mode):
        env = WorldVectorEnv(two_cameras, 2, autoreset_mode=mode, clip_actions=True, **ends)
        info = eval_policy(env, policy, idle, idle, before, after, n_episodes=4, start_seed=SEEDS[0])
        return [episode["sum_reward"] for episode in info["per_episode"]]

    np.testing.assert_allclose(returns(AutoresetMode.DISABLED), ours.reward.sum(1), rtol=1e-6)
    assert np.abs(returns(AutoresetMode.SAME_STEP) - ours.reward.sum(1)).max() > 1e-3


@pytest.mark.parametrize(
    ("cameras", "recorded", "keys"),
    [
        (("image",), (), ["observation.image"]),
        (("image",), ("observation.images.image",), ["observation.images.image"]),
        (("front",), (), ["observation.images.front"]),
        (("top", "wrist"), (), ["observation.images.top", "observation.images.wrist"]),
        (("image", "image2"), (), ["observation.images.image", "observation.images.image2"]),
        (("image", "wrist"), ("observation.image", "front_view"), ["observation.image", "front_view"]),
    ],
    ids=["the only one", "of several called image", "a lone one with a name", "two", "LIBERO's", "others"],
)
def test_features_are_the_worlds_and_reach_the_policy(build_world, tmp_path, cameras, recorded, keys):
    """What LeRobot expects to see (features) and what it then sees (observation, processed) are one."""
    from lerobot.envs import (
        env_to_policy_features,
        make_env,
        make_env_pre_post_processors,
        preprocess_observation,
    )

    world = build_world(cameras=cameras, camera_keys=recorded, environment_state=BLOCK)
    config, shapes = config_of(world.save(tmp_path / "world")), dict.fromkeys(keys, (3, 16, 24))
    low = {key: TWO[key] for key in ("observation.state", "observation.environment_state")}
    stated = {key: feature.shape for key, feature in env_to_policy_features(config).items()}
    assert stated == {**shapes, **low, "action": (2,)}
    assert (config.fps, config.task) == (10, "push the block")

    env = make_env(config, n_envs=3)["scd_world"][0]
    assert env.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    processed, _ = make_env_pre_post_processors(config, None)
    obs = processed(preprocess_observation(env.reset(seed=0)[0]))
    shown = {key: tuple(value.shape[1:]) for key, value in obs.items() if key in shapes | low}
    assert shown == {**shapes, **low}
    assert not [key for key in obs if key.startswith("observation") and key not in shown]


def test_images_are_resized_where_asked(folder):
    from lerobot.envs import env_to_policy_features

    config = config_of(folder, observation_height=32, observation_width=48)
    assert env_to_policy_features(config)["observation.images.wrist"].shape == (3, 32, 48)
    preprocess, _ = config.get_env_processors()
    obs = preprocess(
        {"observation.images.top": torch.full((2, 3, 16, 24), 0.5), "observation.state": torch.ones(2, 2)}
    )
    torch.testing.assert_close(obs["observation.images.top"], torch.full((2, 3, 32, 48), 0.5))
    assert obs["observation.state"].shape == (2, 2)


def test_a_letterboxed_world_shows_a_policy_the_camera_alone(build_world, tmp_path):
    world = build_world(cameras=("top", "wrist"), recorded=((48, 36), (48, 72)), resize="letterbox")
    config = config_of(world.save(tmp_path / "world"), observation_height=32, observation_width=24)
    with pytest.warns(UserWarning, match=r"wrist was recorded in \(48, 72\) .* 50% narrower"):
        preprocess, _ = config.get_env_processors()
    image = torch.zeros(1, 3, 16, 24)
    image[..., 6:18] = 0.5  # 12 × 16, as high as the frame
    obs = preprocess({f"observation.images.{camera}": image for camera in ("top", "wrist")})
    assert (obs["observation.images.top"] == 0.5).all()
    assert obs["observation.images.wrist"].min() == 0  # fills its frame: nothing to cut


def test_figures_of_what_a_world_does_not_predict_are_warned_of(build_world, folder, tmp_path):
    """LeRobot prints 0 % of success all the same."""
    mute = config_of(build_world(reward=False, success=False).save(tmp_path / "mute"))
    with pytest.warns(UserWarning, match="no success.*pc_success"), pytest.warns(match="no reward.*avg_sum"):
        mute.create_envs(n_envs=1)
    with warnings.catch_warnings(record=True) as said:
        config_of(folder).create_envs(n_envs=1)
    assert not [one for one in said if "predicts no" in str(one.message)]


def test_the_configuration_survives_a_checkpoint(folder):
    """lerobot-train saves it as JSON, and resumes from that."""
    import draccus
    from lerobot.envs import EnvConfig

    config = config_of(folder, horizon=5, observation_height=32, observation_width=48)
    saved = json.loads(json.dumps(draccus.encode(config, EnvConfig)))
    assert draccus.decode(EnvConfig, saved) == config


def test_a_single_environment_by_its_gym_id(folder):
    config = config_of(folder, horizon=5)
    env = gymnasium.make(f"{config.package_name}:{config.gym_id}", **config.gym_kwargs)
    assert env.unwrapped.episodes.horizon == 5


def test_a_world_is_loaded_once_until_it_changes(build_world, tmp_path):
    """Training makes and closes its environments at every evaluation."""
    folder = build_world().save(tmp_path / "world")

    def world():
        env = config_of(folder).create_envs(n_envs=1)["scd_world"][0]
        env.reset(seed=0)
        env.close()
        env.close()  # as LeRobot does
        return env.world

    first = world()
    assert world() is first
    build_world().save(folder)
    assert world() is not first


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"action": (3,)}, ["action: the policy has (3,), the environment (2,)", "another robot"]),
        ({"observation.state": (7,)}, ["observation.state: the policy has (7,), the environment (2,)"]),
        (
            {"observation.images.top": (3, 32, 48), "observation.images.wrist": (3, 32, 48)},
            [
                "has (3, 32, 48), the environment (3, 16, 24)",
                "--env.observation_height=32 --env.observation_width=48",
            ],
        ),
    ],
    ids=["action size", "state size", "image size"],
)
def test_a_policy_that_does_not_fit_is_refused(save_policy, folder, tmp_path, monkeypatch, changes, expected):
    policy = save_policy("act", TWO | changes)
    with pytest.raises(ValueError, match="does not fit this environment") as raised:
        lerobot_eval(monkeypatch, tmp_path, *flags(folder, policy))
    for words in expected:
        assert words in str(raised.value)


@pytest.mark.slow
def test_the_likely_rename_is_named_and_works(save_policy, folder, tmp_path, monkeypatch):
    renamed = {key.replace("images.wrist", "images.hand_wrist"): shape for key, shape in TWO.items()}
    policy = save_policy("act", renamed)
    cure = '--rename_map={"observation.images.wrist": "observation.images.hand_wrist"}'
    with pytest.raises(ValueError, match="does not fit this environment") as raised:
        lerobot_eval(monkeypatch, tmp_path, *flags(folder, policy))
    assert cure in str(raised.value).replace("'", "")
    info = lerobot_eval(monkeypatch, tmp_path, *flags(folder, policy), cure, "--env.horizon=3")
    assert info["overall"]["n_episodes"] == 4


def test_settings_that_cannot_be_are_refused(folder, tmp_path):
    for values, message in [
        ({"world": ""}, "which world"),
        ({"world": str(tmp_path / "nowhere")}, "no world at"),
        ({"fps": 30}, "10 frames per second; got fps=30"),
        ({"task": "dance"}, "not trained on the task 'dance'; it knows .'push the block'"),
        ({"observation_height": 64}, "go together"),
        ({"features_map": {"pixels": "observation.image"}}, r"features_map names \['pixels'\]; .*pixels/top"),
    ]:
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            config_of(**({"world": str(folder)} | values))


@pytest.mark.parametrize(
    ("change", "message"), [({"fps": 0}, r"schema\.fps=0"), ({"tasks": 5}, r"schema\.tasks=5")]
)
def test_a_world_that_cannot_be_is_refused_by_name(folder, tmp_path, change, message):
    """The plug-in reads config.json before the world is loaded, and checks it alike."""
    config = json.loads((folder / "config.json").read_text())
    config["schema"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        config_of(tmp_path)
