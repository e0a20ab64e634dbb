"""Recordings without images: they open in LeRobot, and help to train a world that has images."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from scd_datasets.config import DataConfig, SourceConfig
from scd_datasets.preparation.check import check_dataset
from scd_datasets.preparation.low_dim import (
    LowDimData,
    calibration_threshold,
    dataset_low_dim,
    split_hash,
    store_low_dim,
)
from scd_datasets.sources.lerobot.reader import LeRobotFolder
from scd_datasets.sources.open_source import open_source
from scd_datasets.store.statistics import compute_stats
from scd_world.model.config import ModelConfig
from scd_world.prior.config import PriorTrainConfig
from scd_world.rollouts.record import record
from scd_world.training import pretrain, setup
from scd_world.training import trainer as training
from scd_world.training.config import TrainConfig

from ..by_hand import LENGTH, TOP, write_dataset

NOBODY = np.arange(0)


@pytest.fixture
def store(recorded, tmp_path):
    """Episodes of the seeds 0, 1 and 2, with images."""
    return check_dataset(LeRobotFolder(recorded), tmp_path / "images.zarr").store


@pytest.fixture
def blind(config):
    """Episodes of the seeds 1, 2 and 3, without."""
    blind = config("blind", seed=1, env_kwargs={"render_images": False})
    record(blind)
    return blind.out


def test_lerobot_opens_a_recording_without_images(blind):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("local/blind", root=blind)
    assert not dataset.meta.camera_keys
    assert (dataset.num_episodes, dataset.num_frames) == (3, 21)
    assert dataset[7 + 4]["observation.state"].tolist() == [2, 4]


def test_low_dim_data_is_the_same_with_images_and_without(store, blind):
    stored = store_low_dim(store, np.array([1, 2]))  # seeds 1 and 2
    further = dataset_low_dim(blind, store.schema, store_low_dim(store, NOBODY))
    for name in ("state", "prev", "action", "reward", "success"):
        assert np.array_equal(getattr(further, name)[:14], getattr(stored, name), equal_nan=True), name
    assert further.lengths.tolist() == [7, 7, 7]
    assert np.isnan(further.prev[further.starts, -2:]).all()
    assert np.array_equal(further.prev[1:7, :4], further.state[:6])
    assert np.array_equal(further.prev[1:7, 4:], further.action[:6])


def test_further_recordings_that_were_imagined_are_warned_of(store, blind, caplog):
    dataset_low_dim(blind, store.schema)
    assert "imagined" not in caplog.text
    info = Path(blind) / "meta" / "info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"robot_type": "imagined:mine/world:0123abc"}))
    dataset_low_dim(blind, store.schema)
    assert "blind is imagined by the world mine/world (sha256 0123abc): the state prior" in caplog.text


def test_what_is_held_out_is_left_out_of_further_recordings_too(store, blind):
    further = dataset_low_dim(blind, store.schema, store_low_dim(store, np.array([1, 2])))
    assert further.state[:, 0].tolist() == [3] * 7  # the seed


def test_recordings_without_reward_and_success_train_a_world_without(store, blind):
    """As a teleoperated robot's are."""
    outcomes = ["next.reward", "next.success"]
    info = Path(blind) / "meta" / "info.json"
    known = json.loads(info.read_text())
    known["features"] = {name: value for name, value in known["features"].items() if name not in outcomes}
    info.write_text(json.dumps(known))
    for file in (Path(blind) / "data").rglob("*.parquet"):
        pd.read_parquet(file).drop(columns=outcomes).to_parquet(file)
    further = dataset_low_dim(
        blind, replace(store.schema, reward=False, success=False), store_low_dim(store, NOBODY)
    )
    assert further.lengths.tolist() == [7, 7, 7]
    assert not further.reward.any()
    assert further.success.dtype == bool
    assert not further.success.any()


@pytest.mark.parametrize(("change", "named"), [({"fps": 30}, "fps"), ({"action": ("x", "y")}, "'x', 'y'")])
def test_another_robot_is_refused_with_both_sides(store, blind, change, named):
    with pytest.raises(ValueError, match="cannot train") as error:
        dataset_low_dim(blind, replace(store.schema, **change), store_low_dim(store, NOBODY))
    assert named in str(error.value)


def test_a_world_without_images_is_refused_with_what_such_data_is_good_for(blind, tmp_path):
    with pytest.raises(ValueError, match=r"has no camera.*prior\.extra_datasets"):
        check_dataset(LeRobotFolder(blind), tmp_path / "none.zarr")


@pytest.fixture
def trainer(recorded, blind, tmp_path, monkeypatch):
    """A training's config, the states that reach its state prior, and the episodes of its windows."""
    fitted = []

    def fit(dynamics, recorded, *rest):
        fitted.append(recorded)
        yield from ()

    def calibrate(uncertainty, dynamics, recorded, seed):
        fitted.append(recorded)
        return 1

    monkeypatch.setattr(pretrain, "fit_dynamics", fit)
    monkeypatch.setattr(pretrain, "calibrate_uncertainty", calibrate)
    monkeypatch.setattr(pretrain, "calibration_threshold", lambda hashes, share: np.sort(hashes)[1])  # one
    windows = []

    def note(store, episodes):
        windows.extend(episodes)
        return compute_stats(store, episodes)

    monkeypatch.setattr(setup, "compute_stats", note)
    config = TrainConfig(
        out=str(tmp_path / "run"),
        data=DataConfig(root=str(recorded), holdout=0.34),
        model=ModelConfig(width=16, heads=2, encoder_layers=1, decoder_layers=1, patch=8, num_steps=1),
        prior=PriorTrainConfig(extra_datasets=[blind]),
        steps=1,
        batch_size=1,
        sequence_length=4,
        device="cpu",
    )
    return config, fitted, windows


@pytest.mark.slow
def test_a_training_reads_them(trainer, store):
    """But the uncertainty is calibrated on some of them, and nothing may have learned from those."""
    config, fitted, windows = trainer
    training.train(config)
    held_out = store.split(config.data.holdout)[1].tolist()
    learned, calibration, once_more = fitted  # for the dynamics have learned on beside the images
    assert torch.equal(calibration.state, once_more.state)
    there = [seed for seed in (0, 1, 2, 1, 2, 3) if seed not in held_out]
    assert len(learned.lengths) + len(calibration.lengths) == len(there)
    assert len(torch.unique(torch.cat([learned.state, calibration.state])[:, 0])) == len(set(there))
    assert not torch.isin(learned.state[:, 0], calibration.state[:, 0]).any()
    stats = compute_stats(store, windows)
    known = stats.encode_state(torch.from_numpy(store.state[store.starts[windows]]))[:, 0]
    assert torch.isin(known, learned.state[:, 0]).all()
    assert len(windows) < 3 - len(held_out)


def test_episodes_are_split_by_what_they_hold(store):
    """Recorded twice an episode falls into the same split; beside others, or in another order, likewise."""
    data = store_low_dim(store, np.arange(3))
    hashes = split_hash(data)
    assert len(set(hashes)) == 3
    assert ((hashes >= 0) & (hashes < 1)).all()
    assert split_hash(data.concat(data)).tolist() == [*hashes, *hashes]
    assert split_hash(store_low_dim(store, np.array([2, 0, 1]))).tolist() == hashes[[2, 0, 1]].tolist()
    # All that begin alike are not one.
    alike = replace(data, state=data.state.copy(), action=data.action.copy())
    alike.state[alike.starts], alike.action[alike.starts] = 0, 0
    assert len(set(split_hash(alike))) == 3


@pytest.mark.parametrize(
    ("episodes", "share", "expected"), [(3, 0.03, 0), (60, 0.03, 6), (600, 0.03, 20), (60, 0, 0)]
)
def test_few_episodes_give_a_tenth_and_many_their_share(episodes, share, expected):
    rng = np.random.default_rng(0)
    data = LowDimData(
        rng.normal(size=(2 * episodes, 3)), np.zeros((2 * episodes, 4)), rng.normal(size=(2 * episodes, 1)),
        np.zeros(2 * episodes), np.zeros(2 * episodes, bool), np.zeros(2 * episodes, bool),
        np.full(episodes, 2),
    )  # fmt: skip
    assert ((hashes := split_hash(data)) < calibration_threshold(hashes, share)).sum() == pytest.approx(
        expected, abs=6 * (episodes > 99)
    )


def test_dropped_features_are_dropped_in_further_recordings_too(store, blind):
    """And what the world knows must be there."""
    schema = replace(store.schema, environment_state=(), reward=False)
    further = dataset_low_dim(blind, schema)
    assert further.state.shape == (21, 2)
    assert not further.reward.any()
    assert further.success.any()
    with pytest.raises(ValueError, match=r"next.reward is False there, True in the training data"):
        further_data_without_reward(blind, store.schema)


def further_data_without_reward(blind, schema):
    info = Path(blind) / "meta" / "info.json"
    known = json.loads(info.read_text())
    del known["features"]["next.reward"]
    info.write_text(json.dumps(known))
    return dataset_low_dim(blind, schema)


def test_a_missing_folder_is_reported_before_anything_is_decoded(trainer, tmp_path):
    config, *_ = trainer
    with pytest.raises(ValueError, match="nowhere"):
        training.train(replace(config, prior=PriorTrainConfig(extra_datasets=[str(tmp_path / "nowhere")])))
    assert not (tmp_path / "run" / "windows.zarr").exists()


def test_what_is_recorded_beside_is_read_as_the_training_data_was(tmp_path):
    """The same recorder: its own names, and a robot's real clock."""

    def as_recorded(columns):
        columns["cmd"] = columns.pop("action")
        columns["timestamp"] = [0.13 * i + 0.01 * (i % 2) for i in columns["frame_index"]]

    described = {"action": None, "cmd": {"dtype": "float32", "shape": [2], "names": ["dx", "dy"]}}
    roots = [
        write_dataset(tmp_path / name, columns=as_recorded, features=described, cameras=cameras)
        for name, cameras in (("d", None), ("beside", {}))
    ]
    keys = {"cmd": "action"}
    data = SourceConfig(root=str(roots[0]), keys=keys | {TOP: "observation.image"}, clock="index")
    schema = check_dataset(open_source(data), tmp_path / "s.zarr").schema
    further = dataset_low_dim(roots[1], schema, keys=data.low_dim_keys, in_order=True)
    assert further.lengths.tolist() == [LENGTH] * 3
