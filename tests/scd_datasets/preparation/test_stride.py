"""What `data.stride` does to checks, stores, and data beside them."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from scd_datasets.config import CheckConfig, DataConfig, SourceConfig
from scd_datasets.preparation import decode
from scd_datasets.preparation.build import run_check
from scd_datasets.preparation.check import check_dataset, source_digest
from scd_datasets.preparation.low_dim import dataset_low_dim
from scd_datasets.preparation.open_store import open_store
from scd_datasets.preparation.report import WINDOW
from scd_datasets.sources.lerobot.reader import LeRobotFolder
from scd_datasets.sources.open_source import open_source
from scd_datasets.sources.source import DamagedEpisode
from scd_datasets.sources.strided import Strided, any_of, last_of, sum_of
from scd_datasets.store import arrays
from scd_datasets.store.store import WindowStore
from scd_world.training.config import TrainConfig

from ..by_hand import LENGTH, write_dataset
from .test_import import Killed

OUTCOMES = {
    "next.reward": {"dtype": "float32", "shape": [1], "names": None},
    "next.success": {"dtype": "bool", "shape": [1], "names": None},
    "next.done": {"dtype": "bool", "shape": [1], "names": None},
}


def ends_well(columns):
    """Success at the very last frame, which no whole step holds; rewards that count."""
    columns["next.reward"] = np.arange(LENGTH, dtype=np.float32).tolist()
    columns["next.success"] = [i == LENGTH - 1 for i in range(LENGTH)]
    columns["next.done"] = columns["next.success"]


def test_a_step_has_the_outcomes_of_its_frames_and_the_last_step_those_that_there_are(tmp_path):
    root = write_dataset(tmp_path / "d", columns=ends_well, features=OUTCOMES)
    report = check_dataset(Strided(LeRobotFolder(root), 3, "last"), tmp_path / "s.zarr")
    store = report.store
    assert store.lengths.tolist() == [7] * 3  # 6 whole steps of 3, and frames 18 and 19
    rows = slice(0, 7)
    np.testing.assert_array_equal(store.reward[rows], sum_of(np.arange(LENGTH), 3))
    np.testing.assert_array_equal(store.success[rows], any_of(np.arange(LENGTH) == LENGTH - 1, 3))
    assert store.success.sum() == 3
    recorded = LeRobotFolder(root)
    actions = recorded.low_dim(recorded.episodes[0])["action"]
    np.testing.assert_array_equal(store.action[rows], last_of(actions, 3))
    assert not [one for one in report.findings if "next.done" in one.what]
    assert (store.schema.fps, store.schema.horizon) == (pytest.approx(10 / 3), 7)


def test_stride_1_changes_no_digest_and_another_stride_is_another_store(tmp_path):
    root = write_dataset(tmp_path / "d")

    def digest(**changes):
        return source_digest(open_source(SourceConfig(root=str(root), **changes)))

    assert digest() == digest(stride=1) == source_digest(LeRobotFolder(root))
    assert open_source(SourceConfig(root=str(root))).read_options() == [["top"], [32, 48], "stretch"]
    assert len({digest(stride=stride) for stride in (1, 2, 3)}) == 3
    assert digest(stride=3) == digest(stride=3)
    chosen, other = (source_digest(Strided(LeRobotFolder(root), 3, action)) for action in ("last", "mean"))
    assert chosen != other


def test_a_store_of_stride_1_says_nothing_of_it(tmp_path):
    """What lies there, and its fingerprint, are what they were before there were strides. Another schema,
    or other columns, ask for another value."""
    store = check_dataset(LeRobotFolder(write_dataset(tmp_path / "d")), tmp_path / "s.zarr").store
    assert store.stride is None
    assert store.fingerprint.startswith("270ac606e360")
    assert "stride" not in json.loads((store.path / "zarr.json").read_text())["attributes"]


def test_an_unchanged_dataset_is_found_again_and_its_content_tells_its_fingerprint(tmp_path, capsys):
    root = write_dataset(tmp_path / "d")
    data = DataConfig(root=str(root), stride=3)
    run_check(CheckConfig(data=SourceConfig(root=str(root), stride=3)))
    report = capsys.readouterr().out
    assert re.search(r"stride 3: 10 frames a second, read as 3\.33333 → the \w+ action of 3 frames", report)
    found = open_store(data, tmp_path / "run")
    run_check(CheckConfig(data=SourceConfig(root=str(root), stride=3), out=str(tmp_path / "o.zarr")))
    assert "already decoded" in capsys.readouterr().out
    elsewhere = write_dataset(tmp_path / "copy")
    copied = open_store(DataConfig(root=str(elsewhere), stride=3), tmp_path / "other")
    assert found.fingerprint == copied.fingerprint
    assert found.fingerprint != open_store(DataConfig(root=str(root)), tmp_path / "whole").fingerprint
    assert found.stride == WindowStore.open(tmp_path / "o.zarr").stride


def test_a_killed_import_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "SHARD_FRAMES", 16)
    monkeypatch.setattr(decode, "MOST_THREADS", 1)
    config = SourceConfig(root=str(write_dataset(tmp_path / "d", episodes=10)), stride=3)
    pixels, decoded = LeRobotFolder.pixels, []

    def note(self, episode, every=1):
        if episode.index == 7 and not decoded.count(7):
            decoded.append(7)
            raise Killed
        decoded.append(episode.index)
        return pixels(self, episode, every)

    monkeypatch.setattr(LeRobotFolder, "pixels", note)
    with pytest.raises(Killed):
        check_dataset(open_source(config), tmp_path / "s.zarr")
    decoded[:] = [7]
    store = check_dataset(open_source(config), tmp_path / "s.zarr").store
    assert min(decoded) >= 4
    assert store.fingerprint == check_dataset(open_source(config), tmp_path / "whole.zarr").fingerprint


def test_clocks_and_pauses_are_checked_as_recorded(tmp_path):
    """Every third row is in time; between two of them a row was lost, or the robot stood still."""

    def late(columns):
        columns["timestamp"][4] += 0.05

    source = open_source(SourceConfig(root=str(write_dataset(tmp_path / "d", columns=late)), stride=3))
    with pytest.raises(DamagedEpisode, match=r"frames 3 and 4 are 0\.15"):
        check_dataset(source)

    def pause(columns):
        columns["timestamp"] = [t + (0.6 if i > 4 else 0) for i, t in enumerate(columns["timestamp"])]

    root = str(write_dataset(tmp_path / "paused", columns=pause))
    with pytest.raises(DamagedEpisode, match=r"more than 5 steps of 0\.100 s"):
        check_dataset(open_source(SourceConfig(root=root, stride=3, clock="index")))


def test_episodes_shorter_than_a_step_are_a_finding(tmp_path):
    def shorten(columns):
        if columns["episode_index"][0] == 1:
            for name in columns:
                columns[name] = columns[name][:2]

    root = write_dataset(tmp_path / "d", columns=shorten, rows=lambda rows: rows[1].update(length=2))
    report = check_dataset(open_source(SourceConfig(root=str(root), stride=3)), tmp_path / "s.zarr")
    assert report.store.lengths.tolist() == [7, 1, 7]
    assert report.verdict.startswith(
        "not ready: the longest episode has 7 steps, and a training's windows 8;"
    )
    assert TrainConfig(out="").sequence_length == WINDOW
    assert "episodes 1: 1 end before a step of 3 frames does" in report.table()
    table = check_dataset(open_source(SourceConfig(root=str(root), stride=LENGTH))).table()
    assert table.startswith("not ready: no episode has two frames")
    assert "episodes 0, 1, 2: 3 end before" in table


@pytest.mark.parametrize("stride", [0, -3, 1001])
def test_an_absurd_stride_is_refused_at_once(stride):
    with pytest.raises(ValueError, match=rf"data\.stride={stride}: expected a number between 1 and 1000"):
        SourceConfig(stride=stride)


def test_a_window_store_is_not_strided_again(tmp_path):
    root = write_dataset(tmp_path / "d")
    store = check_dataset(LeRobotFolder(root), tmp_path / "s.zarr").store
    with pytest.raises(ValueError, match=r"data\.stride: how a dataset is read"):
        open_store(DataConfig(kind="zarr", root=str(store.path), stride=3), tmp_path)


def test_what_is_recorded_beside_takes_the_same_steps_and_the_same_action(tmp_path):
    """Whatever it would choose itself, or stands in data.stride: the store says what a step is."""
    root, beside = write_dataset(tmp_path / "d"), write_dataset(tmp_path / "beside", cameras={})
    for action in ("last", "mean"):
        source = Strided(LeRobotFolder(root), 2, action)
        store = check_dataset(source, tmp_path / f"{action}.zarr").store
        further = dataset_low_dim(beside, store.schema, stride=store.stride)
        assert further.lengths.tolist() == store.lengths.tolist() == [LENGTH // 2] * 3
        np.testing.assert_array_equal(further.action, store.action)
        np.testing.assert_array_equal(further.state, store.state)
    at_its_rate = write_dataset(tmp_path / "slow", cameras={}, fps=5)
    assert dataset_low_dim(at_its_rate, store.schema, stride=store.stride).lengths.tolist() == [LENGTH] * 3
    with pytest.raises(ValueError, match=r"fps is 10 there, 5 in the training data"):
        dataset_low_dim(beside, store.schema)


def test_a_recording_at_another_rate_than_the_worlds_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    root = str(write_dataset(tmp_path / "d", fps=30))
    world = open_store(DataConfig(root=root, stride=3), tmp_path / "a").schema
    assert open_store(DataConfig(root=root, stride=3), tmp_path / "b", world=world).schema == world
    monkeypatch.setattr(LeRobotFolder, "pixels", lambda *_: pytest.fail("decoded"))
    hint = r"has fps {}, this world was trained with 10: data\.stride=3 reads it so"
    with pytest.raises(ValueError, match=hint.format(30)):
        open_store(DataConfig(root=root), tmp_path / "c", world=world)
    with pytest.raises(ValueError, match=hint.format(15)):  # of what was recorded, not of what is read now
        open_store(DataConfig(root=root, stride=2), tmp_path / "c", world=world)
    bounds = {name: (*getattr(world, name), 1.0) for name in ("action_low", "action_high")}
    another = replace(world, action=(*world.action, "gripper"), **bounds)
    with pytest.raises(ValueError, match=r"has 2 actions .*takes 3 .*gripper\): it is of another robot"):
        open_store(DataConfig(root=root), tmp_path / "c", world=another)  # and nothing of its rate
    slow = str(write_dataset(tmp_path / "slow", fps=8))
    with pytest.raises(ValueError, match="evaluate it on data of its own rate"):
        open_store(DataConfig(root=slow), tmp_path / "c", world=world)
