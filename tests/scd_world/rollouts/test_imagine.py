"""Imagined datasets: LeRobot reads what was imagined, they are marked so, and can be trained on."""

from __future__ import annotations

import json
import os
import signal
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import scd_policies
from scd_datasets.config import DataConfig
from scd_datasets.preparation.check import check_dataset, check_low_dim
from scd_datasets.preparation.open_store import open_store
from scd_datasets.sources.lerobot.imagined_mark import IMAGINED
from scd_datasets.sources.lerobot.reader import LeRobotFolder
from scd_datasets.sources.strided import Strided
from scd_datasets.writing.episodes import summary
from scd_envs.vector_env import WorldVectorEnv
from scd_policies.rollout import EpisodeRollout, episodes
from scd_world.prior.config import PriorConfig
from scd_world.rollouts.config import RolloutConfig
from scd_world.rollouts.imagine import InterruptibleEnv, imagine_dataset, recorded_actions
from scd_world.training.config import TrainConfig
from scd_world.training.export import provenance
from scd_world.utils.atomic_folder import MANIFEST, sha256
from scd_world.world.model_card import model_card
from scd_world.world.starts import StartStates
from scd_world.world.world import World
from tests.conftest import make_model
from tests.scd_datasets.by_hand import write_dataset

SHAPES = {
    "observation.images.top": (3, 8, 12),
    "observation.images.wrist": (3, 8, 12),
    "observation.state": (2,),
    "observation.environment_state": (1,),
    "action": (2,),
}


@pytest.fixture
def config(world: World, tmp_path: Path):
    """Six episodes of at most seven steps, four at a time."""
    folder = world.save(tmp_path / "world")

    def make(out: str = "imagined", **changes) -> RolloutConfig:
        values = {"world": str(folder), "out": str(tmp_path / out), "episodes": 6, "num_envs": 4}
        values |= {"horizon": 7, "success_threshold": 0.97, "num_videos": 0, "device": "cpu", "seed": 3}
        return RolloutConfig(**(values | changes))

    return make


def contents(root: str | Path) -> list:
    """Everything a dataset holds, episode by episode."""
    folder = LeRobotFolder(root)
    return [(check_low_dim(folder, e), folder.pixels(e)) for e in folder.episodes]


def assert_same(one: str, other: str) -> None:
    for (low_dim, pixels), (others, other_pixels) in zip(contents(one), contents(other), strict=True):
        assert all(np.array_equal(low_dim[key], others[key]) for key in low_dim)
        np.testing.assert_array_equal(pixels, other_pixels)


def play(world: World, threshold: float) -> list[EpisodeRollout]:
    """The episodes of `config`, as the environment itself gives them."""
    env = WorldVectorEnv(world, 4, autoreset_mode="Disabled", horizon=7, success_threshold=threshold)
    policy = scd_policies.make("random_walk", env.single_action_space)
    return list(episodes(env, policy, seeds=range(3, 11), frames=True))[:6]


@pytest.mark.slow
def test_lerobot_reads_what_was_imagined(config, world):
    """Frame by frame: an action that stood beside the image it led to would go unnoticed in training."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    endless = [episode.info["success_probability"][:6].max() for episode in play(world, 1.0)]
    best = np.sort(endless)
    threshold = float(best[np.diff(best).argmax() :][:2].mean())  # some episodes end by success, some do not
    played = play(world, threshold)
    notes = imagine_dataset(config(num_videos=2, success_threshold=threshold))
    dataset = LeRobotDataset("local/imagined", root=config().out)
    assert [len(episode) for episode in played] == [note["length"] for note in notes]
    assert len({len(episode) for episode in played}) > 1
    row = 0
    for episode, note in zip(played, notes, strict=True):
        for i in range(len(episode)):
            frame = dataset[row]
            for camera in ("top", "wrist"):
                image = (frame[f"observation.images.{camera}"].permute(1, 2, 0) * 255).round().byte().numpy()
                np.testing.assert_array_equal(image, episode.obs["pixels"][camera][i])
            np.testing.assert_array_equal(frame["observation.state"], episode.obs["agent_pos"][i])
            assert frame["observation.environment_state"].item() == episode.obs["environment_state"][i, 0]
            np.testing.assert_array_equal(frame["action"], episode.action[i])
            assert frame["next.reward"].item() == pytest.approx(episode.reward[i], rel=1e-6)
            probability = episode.info["success_probability"][i]
            assert frame["next.success_probability"].item() == pytest.approx(probability, rel=1e-6)
            assert frame["next.success"].item() == (probability > threshold)
            assert frame["next.done"].item() == (i == len(episode) - 1)
            assert frame["task"] == "push"
            row += 1
        assert note["return"] == pytest.approx(episode.reward.sum(), rel=1e-5)
        assert note["success"] == episode.success
    assert row == dataset.num_frames
    assert (Path(config().out) / "film.mp4").stat().st_size > 1000
    assert (Path(config().out) / "strip.png").is_file()


@pytest.mark.slow
def test_it_says_that_it_is_imagined_and_by_whom(config, tmp_path):
    from lerobot.datasets.aggregate import validate_all_metadata
    from lerobot.datasets.lerobot_dataset import LeRobotDatasetMetadata

    imagine_dataset(config())
    root = Path(config().out)
    made = json.loads((root / "meta" / "imagined.json").read_text())
    assert made["imagined"] is True
    assert made["world_sha256"] == sha256(Path(config().world) / MANIFEST)
    assert [note["seed"] for note in made["episodes"]] == list(range(3, 9))
    assert made["episodes"][0]["policy"] == "random_walk"
    imagined = LeRobotDatasetMetadata("local/imagined", root=root)
    assert imagined.robot_type == f"imagined:{tmp_path.name}/world:{made['world_sha256'][:12]}"
    real = LeRobotDatasetMetadata("local/imagined", root=root)
    real.info.robot_type = None
    with pytest.raises(ValueError, match="robot_type"):
        validate_all_metadata([real, imagined])  # LeRobot's own guard against merging the two


@pytest.mark.slow
def test_it_says_so_after_lerobots_own_edits(config, tmp_path):
    """Each of them writes a new dataset, without our files."""
    from lerobot.datasets.dataset_tools import delete_episodes, merge_datasets, remove_feature, split_dataset
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    imagine_dataset(config())
    whole = LeRobotDataset("local/imagined", root=config().out)
    some = delete_episodes(whole, [0], tmp_path / "some", "local/some")
    parts = split_dataset(whole, {"few": [1], "many": [2, 3]}, tmp_path / "parts")
    edited = [some, *parts.values()]
    edited.append(merge_datasets([some, parts["few"]], "local/merged", tmp_path / "merged"))
    edited.append(remove_feature(whole, "next.reward", tmp_path / "less", "local/less"))
    by = (
        f"imagined by the world {tmp_path.name}/world (sha256 {sha256(Path(config().world) / MANIFEST)[:12]})"
    )
    for dataset in edited:
        assert not (dataset.root / IMAGINED).exists()
        assert by in check_dataset(LeRobotFolder(dataset.root)).table()


@pytest.mark.slow
def test_equal_seeds_equal_datasets_and_continuing_changes_nothing(config):
    imagine_dataset(config())
    imagine_dataset(config("parts", episodes=3))
    imagine_dataset(config("parts", episodes=6))
    assert_same(config().out, config("parts").out)
    imagine_dataset(config("other", seed=4))
    mine, theirs = contents(config().out), contents(config("other").out)
    np.testing.assert_array_equal(mine[1][1][0], theirs[0][1][0])  # episode 1 of seed 3 is episode 0 of 4
    with pytest.raises(ValueError, match="num_envs: 4 there, 2 here"):
        imagine_dataset(config(num_envs=2))
    with pytest.raises(ValueError, match="seed: 3 there, 5 here"):
        imagine_dataset(config(seed=5))


@pytest.mark.slow
def test_a_signal_keeps_whole_episodes(config, monkeypatch):
    steps, usual = [], InterruptibleEnv.step

    def interrupt(self, actions):
        steps.append(1)
        if len(steps) == 9:  # in the second batch
            os.kill(os.getpid(), signal.SIGTERM)
        return usual(self, actions)

    with monkeypatch.context() as patch:
        patch.setattr(InterruptibleEnv, "step", interrupt)
        assert len(imagine_dataset(config())) == 4
    assert len(steps) < 11
    imagine_dataset(config())
    imagine_dataset(config("straight"))
    assert_same(config().out, config("straight").out)


@pytest.mark.slow
def test_a_replay_takes_the_recorded_actions_from_the_recorded_starts(config, world, tmp_path):
    """Off by one frame, and the actions would belong to other images."""
    imagine_dataset(config("recorded", success_threshold=1.0))
    recorded = contents(config("recorded").out)
    folder = replace(world, starts=starts_of(recorded)).save(tmp_path / "of_recorded")
    again = {"policy": "replay", "replay": config("recorded").out, "horizon": 100, "success_threshold": 1.0}
    notes = imagine_dataset(config(world=str(folder), starts=[[1, 0], [4, 3]], **again))
    assert [note["length"] for note in notes] == [7, 4] * 3
    replayed = contents(config().out)
    for (low_dim, pixels), (episode, frame) in zip(replayed[:2], [(1, 0), (4, 3)], strict=True):
        np.testing.assert_array_equal(low_dim["action"], recorded[episode][0]["action"][frame:])
        np.testing.assert_array_equal(pixels[0], recorded[episode][1][frame])
    with pytest.raises(ValueError, match=r"none of the starts \[\[9, 0\]\]"):
        imagine_dataset(config("none", world=str(folder), starts=[[9, 0]], **again))


def test_a_replay_of_other_joints_is_refused_or_remarked(world, tmp_path, caplog):
    """Moved by another joint's actions an episode says nothing, and looks as if it did."""

    def replayed(*names):
        action = {"dtype": "float32", "shape": [len(names)], "names": [*names]}
        root = write_dataset(tmp_path / "".join(names), features={"action": action})
        return recorded_actions(str(root), world, [(1, 0)])

    with pytest.raises(ValueError, match=r"records 2: ay, ax\n.* takes 2: ax, ay"):
        replayed("ay", "ax")
    replayed("joint 1", "joint 2")
    assert "have other names, and are taken in this order" in caplog.text


def test_a_replay_takes_the_steps_of_a_world_that_was_trained_with_a_stride(world, tmp_path):
    """Starts count the world's steps, and so must the recorded actions."""
    names = {"dtype": "float32", "shape": [2], "names": ["ax", "ay"]}
    root = write_dataset(tmp_path / "fast", fps=30, features={"action": names})
    source = Strided(LeRobotFolder(root), 3)
    kept, actions = recorded_actions(str(root), world, [(1, 2), (2, 7)])  # 20 frames are 7 steps
    assert kept == [(1, 2)]
    np.testing.assert_allclose(actions[0], source.low_dim(source.episodes[1])["action"][2:], rtol=1e-6)


@pytest.mark.parametrize(("fps", "fits"), [(5, False), (15, False), (10.005, True), (20, True)])
def test_a_replay_at_a_rate_that_is_not_the_worlds_at_any_stride_is_refused(world, tmp_path, fps, fits):
    """Its actions would be played twice as fast as they were meant."""
    names = {"dtype": "float32", "shape": [2], "names": ["ax", "ay"]}
    root = write_dataset(tmp_path / "other", fps=fps, features={"action": names})
    expected = rf"has fps {fps:g}, this world was trained with 10: replay a recording of its own rate"
    with nullcontext() if fits else pytest.raises(ValueError, match=expected):
        recorded_actions(str(root), world, [(1, 2)])


def starts_of(recorded: list) -> StartStates:
    addresses = [(e, f) for e, (_, pixels) in enumerate(recorded) for f in range(len(pixels))]
    state = [
        np.column_stack([n["observation.state"], n["observation.environment_state"]]) for n, _ in recorded
    ]
    return StartStates(
        pixels=np.concatenate([pixels for _, pixels in recorded]),
        state=np.concatenate(state).astype(np.float32),
        action=np.concatenate([low_dim["action"] for low_dim, _ in recorded]).astype(np.float32),
        addresses=np.array(addresses),
    )


@pytest.mark.slow
def test_a_lerobot_policy_took_each_action_at_the_frame_beside_it(config, world, save_policy):
    """Shown the dataset's frames in order, the checkpoint takes the dataset's actions again."""
    path = save_policy("act", SHAPES)
    imagine_dataset(config(policy=str(path), episodes=2, num_envs=2, success_threshold=1.0))
    env = WorldVectorEnv(world, 2)
    policy = scd_policies.make("lerobot", env.single_action_space, path=path, device="cpu", task="push")
    policy.reset([3, 4])
    shown = contents(config().out)
    for i in range(7):
        pixels = np.stack([pixels[i] for _, pixels in shown])
        low_dim = [episode for episode, _ in shown]
        obs = {
            "pixels": {"top": pixels[:, 0], "wrist": pixels[:, 1]},
            "agent_pos": np.stack([n["observation.state"][i] for n in low_dim]),
            "environment_state": np.stack(
                [n["observation.environment_state"].reshape(-1, 1)[i] for n in low_dim]
            ),
        }
        box = env.single_action_space
        taken = np.stack([n["action"][i] for n in low_dim])
        np.testing.assert_allclose(taken, np.clip(policy.act(obs), box.low, box.high), atol=1e-5)
    assert np.std(taken) > 0


@pytest.mark.slow
def test_it_goes_back_into_training_with_a_note(config, world, tmp_path, caplog):
    imagine_dataset(config())
    report = check_dataset(LeRobotFolder(config().out))
    assert "imagined" in report.table()
    assert str(world.schema.fps) in report.table()
    store = open_store(DataConfig(root=config().out), tmp_path / "run")
    for name in ("cameras", "height", "width", "agent_pos", "environment_state", "action", "fps", "tasks"):
        assert getattr(store.schema, name) == getattr(world.schema, name), name
    assert (store.schema.reward, store.schema.success) == (True, True)
    assert len(store.lengths) == 6
    # A store knows no robot, and a world trained from it would pass for one of recordings.
    again = open_store(DataConfig(kind="zarr", root=str(store.path)), tmp_path)
    made = provenance(
        TrainConfig(data=DataConfig(root="it"), out="run"), again, np.arange(1), 1, 1.0, {}, None
    )
    assert made["imagined"].startswith("imagined by the world")
    assert f"None of it was recorded: it was {made['imagined']}" in model_card(
        again.schema, PriorConfig(), made
    )
    assert caplog.text.count(f"was {made['imagined']}: to learn from it") == 2


def test_a_world_without_reward_and_success_says_neither(config, world, tmp_path, model):
    schema = replace(world.schema, reward=False, success=False, cameras=("front",))
    from scd_world.robot_data.normalizer import Normalizer

    mute = World(
        make_model(model.config, schema, Normalizer.neutral(schema)).eval(),
        Normalizer.neutral(schema),
        replace(world.starts, pixels=world.starts.pixels[:, :1]),
    )
    notes = imagine_dataset(config(world=str(mute.save(tmp_path / "mute")), episodes=1, num_envs=1))
    features = LeRobotFolder(config().out).features
    assert {key for key in features if key.startswith("next.")} == {"next.done", "next.uncertainty"}
    assert "observation.images.front" in features
    assert (notes[0]["return"], notes[0]["success"]) == (None, None)
    assert "success –  return –" in summary(notes)


@pytest.mark.slow
def test_cameras_come_out_by_the_names_that_they_went_in(config, world, tmp_path):
    keys = ("observation.image", "front_view")
    schema = replace(world.schema, cameras=("image", "front_view"), camera_keys=keys)
    made = World(make_model(world.config, schema, world.stats).eval(), world.stats, world.starts)
    imagine_dataset(config(world=str(made.save(tmp_path / "named")), episodes=1, num_envs=1))
    again = LeRobotFolder(config().out)
    assert again.camera_keys == keys
    store = open_store(DataConfig(root=config().out), tmp_path / "run")
    assert (store.schema.cameras, store.schema.camera_keys) == (schema.cameras, keys)


@pytest.mark.slow
@pytest.mark.parametrize("changed", ["action", "camera", "size"])
def test_a_policy_of_another_robot_is_refused_with_both_sides_and_the_cure(config, save_policy, changed):
    shapes = dict(SHAPES)
    if changed == "action":
        shapes["action"] = (3,)
    elif changed == "camera":
        shapes["observation.images.ceiling"] = shapes.pop("observation.images.top")
    else:
        shapes["observation.images.top"] = (3, 16, 24)
    path = save_policy("act", shapes)
    with pytest.raises(ValueError, match="does not fit") as raised:
        imagine_dataset(config(policy=str(path)))
    message = str(raised.value)
    assert "observation.images.wrist (3, 8, 12)" in message
    assert not Path(config().out).exists()
    if changed == "action":
        assert "action: the policy has (3,), the environment (2,)" in message
        return
    (cure,) = [word for word in message.split("'") if word.startswith("policy_kwargs={")]
    kwargs = OverridesParser.create().parse_override(cure).value()  # what is advised is what Hydra reads
    assert len(imagine_dataset(config(policy=str(path), policy_kwargs=kwargs, episodes=1, num_envs=1))) == 1


def test_settings_that_cannot_be_are_refused():
    for bad in (
        {"episodes": 0},
        {"starts": [3, 4]},
        {"starts": [[3.7, 0]]},
        {"policy": "replay"},
        {"device": "tpu"},
    ):
        with pytest.raises(ValueError, match=next(iter(bad))):
            RolloutConfig(world="w", out="o", **bad)


def test_a_planner_imagines_and_its_promise_is_kept(config):
    """Not how long it took: the same command gives the same dataset."""
    planned = {"base": "random_walk", "n": 3, "horizon": 3, "execute": 2, "device": "cpu"}
    how = {"policy": "best_of_n", "episodes": 1, "num_envs": 1, "horizon": 3}
    kwargs = {"world": config().world, **planned}
    (note,), (again,) = (imagine_dataset(config(out, policy_kwargs=kwargs, **how)) for out in ("one", "two"))
    assert np.isfinite(note["means"]["plan_value"])
    assert note == again
    assert "plan_seconds" not in json.dumps(note)


def test_starts_that_the_world_has_not_are_refused_before_anything_is_imagined(config):
    """The wrong one was found when its turn came."""
    with pytest.raises(ValueError, match="no start at episode 99999, frame 0"):
        imagine_dataset(config(starts=[[4, 0], [99999, 0]], num_envs=1, episodes=2))
    assert not list(Path(config().out).rglob("*.parquet"))
