"""Recordings: what is written, that they survive interruption, and continue as if nothing had happened."""

import errno
import json
import os
import shutil
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import ClassVar

import gymnasium
import numpy as np
import pyarrow.parquet as pq
import pytest

from scd_datasets.preparation.check import check_dataset, check_low_dim
from scd_datasets.sources.lerobot.reader import LeRobotFolder
from scd_datasets.sources.source import DamagedEpisode
from scd_datasets.writing import lerobot_writer
from scd_datasets.writing.episodes import summary
from scd_policies import make
from scd_world.rollouts.config import PolicyShare
from scd_world.rollouts.record import PolicyMixture, checked, make_features, record, run_episode, run_record
from scd_world.utils.atomic_folder import beside
from scd_world.utils.interruption import Interrupted


def contents(root):
    """Everything a dataset holds, episode by episode."""
    folder = LeRobotFolder(root)
    return [(check_low_dim(folder, episode), folder.pixels(episode)) for episode in folder.episodes]


def assert_same(one, other):
    one, other = contents(one), contents(other)
    assert len(one) == len(other)
    for (low_dim, pixels), (other_low_dim, other_pixels) in zip(one, other, strict=True):
        assert all(np.array_equal(low_dim[key], other_low_dim[key]) for key in low_dim)
        assert np.array_equal(pixels, other_pixels)


def test_lerobot_opens_a_recording_and_reads_what_was_observed(recorded):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("local/counting", root=recorded, video_backend="pyav")
    assert (dataset.num_episodes, dataset.num_frames, dataset.fps) == (3, 21, 10)
    frame = dataset[7 + 4]  # episode 1, frame 4
    assert (frame["observation.images.wrist"] * 255).round()[:, 0, 0].tolist() == [1, 4, 1]
    assert frame["observation.state"].tolist() == [1, 4]
    assert frame["observation.environment_state"].tolist() == [-1, -4]
    assert frame["next.reward"].item() == 5
    assert [dataset[i]["next.done"].item() for i in range(7)] == [False] * 6 + [True]
    assert [dataset[i]["next.success"].item() for i in range(7)] == [False] * 6 + [True]
    assert frame["task"] == "scd_tests/Counting-v0"


def test_a_continued_recording_equals_a_straight_one(config, recorded):
    record(config(episodes=1))
    notes = record(config(episodes=3))
    assert [note["seed"] for note in notes] == [0, 1, 2]
    assert_same(config().out, recorded)


def test_episodes_embedded_at_once_are_those_that_lerobot_embeds_row_by_row(config, recorded, monkeypatch):
    monkeypatch.setattr(lerobot_writer, "_embedding_at_once", nullcontext)
    slow = config(out="slow")
    record(slow)
    here, there = (sorted(Path(root).glob("data/*/*.parquet")) for root in (recorded, slow.out))
    assert [file.name for file in here] == [file.name for file in there]
    for one, other in zip(here, there, strict=True):
        assert pq.read_table(one).equals(pq.read_table(other))


def test_an_environment_that_uses_its_arrays_again_is_recorded_as_it_was_observed():
    """Else each frame would be the one that its action led to, and nothing would show it."""

    class Reusing(gymnasium.Env):
        def __init__(self):
            box = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
            self.observation_space, self.action_space = gymnasium.spaces.Dict(agent_pos=box), box
            self.obs = {"pixels": np.zeros((8, 8, 3), np.uint8), "agent_pos": np.zeros(1, np.float32)}

        def reset(self, *, seed=None, options=None):
            return self.obs, {}

        def step(self, action):
            self.obs["pixels"] += 1
            self.obs["agent_pos"] += 1
            return self.obs, 0.0, False, False, {}

    env = Reusing()
    frames = list(run_episode(env, make("random_walk", env.action_space), seed=0, max_steps=4))
    assert [frame["observation.state"].item() for frame in frames] == [0, 1, 2, 3]
    assert [frame["observation.image"].max() for frame in frames] == [0, 1, 2, 3]


@pytest.mark.parametrize("reports", [True, False])
def test_success_that_is_reported_at_the_end_alone_is_recorded(reports):
    class Late(gymnasium.Env):
        action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

        def reset(self, *, seed=None, options=None):
            self.left = 5
            return {"pixels": np.zeros((8, 8, 3), np.uint8)}, {}

        def step(self, action):
            self.left -= 1
            info = {"is_success": True} if reports and self.left == 0 else {}
            return {"pixels": np.zeros((8, 8, 3), np.uint8)}, 0.0, self.left == 0, False, info

    assert ("next.success" in make_features(Late(), seed=0, max_steps=9, videos=False)) is reports


class Plain(gymnasium.Env):
    """Two steps; says nothing of success but in the episodes of the seeds that succeed."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, reward=1.0, succeeds=()):
        self.reward, self.succeeds, self.render_mode = reward, succeeds, "rgb_array"
        self.observation_space = gymnasium.spaces.Dict(
            pixels=gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)
        )
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.seed, self.left = seed, 2
        return self.observation_space.sample(), {}

    def step(self, action):
        self.left -= 1
        info = {"is_success": True} if self.left == 0 and self.seed in self.succeeds else {}
        return self.observation_space.sample(), self.reward, self.left == 0, False, info


gymnasium.register("scd_tests/Plain-v0", Plain, disable_env_checker=True)


def test_an_environment_that_never_speaks_of_success_has_no_rate_of_it(config):
    plain = config(env="scd_tests/Plain-v0")
    notes = record(plain)
    assert [(note["return"], note["success"]) for note in notes] == [(2.0, None)] * 3
    assert "success –  return 2" in summary(notes)
    kept = json.loads((Path(plain.out) / "meta" / "recording.json").read_text())
    assert [note["success"] for note in kept["episodes"]] == [None] * 3


def test_a_success_that_cannot_be_recorded_any_more_is_warned_of(config, caplog):
    notes = record(config(env="scd_tests/Plain-v0", env_kwargs={"succeeds": [1]}))
    assert [note["success"] for note in notes] == [None] * 3
    (warning,) = [line.message for line in caplog.records if line.levelname == "WARNING"]
    assert "episode 1 ends in success" in warning


@pytest.mark.parametrize(
    ("actions", "said"),
    [
        (np.zeros(1), r"of shape \(1,\) for one observation; expected finite numbers of shape \(1, 1\)"),
        (np.zeros((1, 7)), r"of shape \(1, 7\)"),
        (np.full((1, 1), np.nan), "nan.* expected finite numbers"),
        (None, "None"),
    ],
)
def test_a_policy_that_gives_no_action_is_named(actions, said):
    """It once was the recording's feature, or the state of the next frame, that was said to be wrong."""
    box = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    with pytest.raises(ValueError, match=rf"Mine gives actions .*{said}"):
        checked(actions, box, "Mine")
    with pytest.warns(UserWarning, match=r"Mine sends actions outside \[-1, 1\].* in dimension 0"):
        assert checked(np.full((1, 1), 9.0), box, "Mine") == 9


@pytest.mark.parametrize("reward", [np.ones(2), None, "much"])
def test_a_reward_is_one_number(config, reward):
    with pytest.raises(ValueError, match=r"gives the reward .*; expected one number"):
        record(config(env="scd_tests/Plain-v0", env_kwargs={"reward": reward}))
    assert not Path(config().out).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_whole_episodes(config, recorded, at_step, number):
    def interrupt(step):
        if step == 1 + 7 + 3:  # the first step only asks what the environment reports; then in episode 1
            os.kill(os.getpid(), number)

    usual = signal.getsignal(number)
    at_step(interrupt)
    with pytest.raises(Interrupted, match=r"stopped: 1 of \d+ episodes are safe") as ended:
        run_record(config())
    assert ended.value.status == 128 + number  # of the process, as shells have it
    assert len(contents(config().out)) == 1
    assert not beside(Path(config().out), ".scd-recording").exists()
    assert signal.getsignal(number) is usual
    at_step(lambda step: None)
    record(config())
    assert_same(config().out, recorded)


@pytest.mark.slow
def test_kill_9_at_any_time_leaves_a_dataset_that_opens_and_continues(
    config, recorded, tmp_path, monkeypatch
):
    """What lies on disk when a file has just been moved in, or in the middle of an episode, is copied: a kill
    can leave nothing else."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    snapshots = []

    def snapshot(*_):
        if Path(config("killed").out).exists():
            snapshots.append(tmp_path / f"snapshot_{len(snapshots)}")
            for name in ("killed", ".killed.scd-recording"):
                source = tmp_path / name
                if source.exists():
                    shutil.copytree(source, snapshots[-1] / name)

    replace = os.replace

    def replace_and_look(source, target):
        replace(source, target)
        snapshot()

    monkeypatch.setattr(lerobot_writer.os, "replace", replace_and_look)
    record(config("killed"))
    monkeypatch.undo()
    assert len(snapshots) > 5
    for taken in snapshots:
        assert len(contents(taken / "killed")) in (1, 3)
        assert LeRobotDataset("local/killed", root=taken / "killed", video_backend="pyav")[6]["next.done"]
    for taken in (snapshots[0], snapshots[2], snapshots[-2]):
        record(config(f"{taken.name}/killed"))
        assert_same(taken / "killed", recorded)
        assert not (taken / ".killed.scd-recording").exists()


@pytest.mark.slow
def test_full_disk_keeps_what_was_published(config, recorded, monkeypatch):
    record(config(episodes=2))

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
        with pytest.raises(OSError, match="No space left"):
            record(config())
    assert len(contents(config().out)) == 2
    record(config())
    assert_same(config().out, recorded)


def test_images_that_could_not_be_written_never_join_the_dataset(config, monkeypatch):
    """LeRobot's image writer logs the error and goes on."""
    record(config(episodes=1))
    from lerobot.datasets.image_writer import write_image

    def half(image, path, *args, **kwargs):
        write_image(image, path, *args, **kwargs)
        if path.name.endswith("000005.png"):
            path.write_bytes(path.read_bytes()[:-40])

    monkeypatch.setattr("lerobot.datasets.image_writer.write_image", half)
    with pytest.raises((OSError, DamagedEpisode), match="truncated"):
        record(config(episodes=2))
    assert len(contents(config().out)) == 1


def test_other_settings_and_foreign_folders_are_refused(config, tmp_path):
    record(config(episodes=1))
    with pytest.raises(ValueError, match="seed: 0 there, 5 here"):
        record(config(seed=5))
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="no recording of scd-record"):
        record(config("mine"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["counting", "mine"]
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_recording_that_was_added_to_or_edited_is_not_continued(config):
    """Its notes would belong to other episodes, or its features to other columns."""
    record(config(episodes=1))
    file = Path(config().out) / "meta" / "info.json"
    info = file.read_text()
    file.write_text(info.replace('"total_episodes": 1', '"total_episodes": 2'))
    with pytest.raises(ValueError, match=r"holds 2 episodes, and meta/recording\.json knows 1"):
        record(config())
    file.write_text(info.replace("observation.images.top", "observation.images.up"))
    with pytest.raises(
        ValueError, match=r"same features \(observation\.images\.top, observation\.images\.up "
    ):
        record(config())
    file.write_text(info)
    assert len(record(config())) == 3


def test_a_recording_of_an_earlier_version_is_continued(config, recorded):
    """Its recipe has the settings' former names."""
    record(config(episodes=1))
    file = Path(config().out) / "meta" / "recording.json"
    recording = json.loads(file.read_text())
    (policy,) = recording["recipe"]["policies"]
    policy |= {"flaws": policy.pop("degrade"), "share": policy.pop("weight")}
    recording["recipe"]["videos"] = recording["recipe"].pop("store_as_video")
    file.write_text(json.dumps(recording))
    record(config())
    assert_same(config().out, recorded)


def test_an_environment_that_breaks_costs_its_own_episode_only(config, at_step):
    def unplug(step):
        if step == 1 + 14 + 2:
            raise OSError("the camera is gone")

    at_step(unplug)
    with pytest.raises(OSError, match="the camera is gone"):
        record(config())
    assert len(contents(config().out)) == 2


def test_two_recorders_in_one_folder(config, at_step):
    def second(step):
        if step == 3:
            with pytest.raises(OSError, match="another process is recording"):
                record(config())

    at_step(second)
    assert len(record(config())) == 3


def test_a_mixture_goes_round_and_lists_go_through_their_entries():
    shares = [
        PolicyShare("a", {"skill": [1.0, 0.5], "fixed": 3}, weight=3),
        PolicyShare("b", degrade={"offset": [[1, 0], [0, 2]]}),
    ]
    plan = [(part.policy, *rest) for part, *rest in map(PolicyMixture(None, shares).plan, range(8))]
    a = [{"skill": skill, "fixed": 3} for skill in (1.0, 0.5, 1.0, 0.5, 1.0, 0.5)]
    assert [name for name, *_ in plan] == ["a", "a", "a", "b"] * 2
    assert [kwargs for name, kwargs, _ in plan if name == "a"] == a
    assert [degrade for _, _, degrade in plan] == [
        {},
        {},
        {},
        {"offset": [1, 0]},
        {},
        {},
        {},
        {"offset": [0, 2]},
    ]


def test_videos_have_a_whole_rate(tmp_path):
    """LeRobot's encoder takes no other, and says so in FFmpeg's words after the first episode."""
    with pytest.raises(ValueError, match=r"not 29\.97 fps: store_as_video=false"):
        lerobot_writer.LeRobotWriter(tmp_path / "video", 29.97, {}, {}, videos=True)
    with lerobot_writer.LeRobotWriter(tmp_path / "video", 30.0, {}, {}, videos=True) as writer:
        assert isinstance(writer.fps, int)


def test_video_recording(config):
    priority = os.sched_getscheduler(0) if hasattr(os, "sched_getscheduler") else None
    record(config(store_as_video=True, episodes=3))
    if priority is not None:  # the AV1 encoder raises root's to real time
        assert os.sched_getscheduler(0) == priority
    report = check_dataset(LeRobotFolder(config().out), Path(config().out + ".zarr"))
    windows = report.store.windows(np.arange(3), np.zeros(3, int), 7)
    number = windows["pixels"][:, :7, 0, 30, 30].astype(int)
    assert abs(number[..., 0] - np.arange(3)[:, None]).max() <= 6  # lossy
    assert abs(number[..., 1] - np.arange(7)).max() <= 6
