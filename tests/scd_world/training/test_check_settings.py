"""What the data does not allow is said before anything is decoded or pretrained, all at once."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import scd_datasets.preparation.open_store as open_store_module
import scd_world.training.trainer as trainer_module
from scd_datasets.config import DataConfig
from scd_datasets.preparation.open_store import check_recording_of, open_store
from scd_datasets.sources.open_source import open_source
from scd_world.training.check_settings import check_before_decoding, check_episodes
from scd_world.training.pretrain import Pretraining
from scd_world.training.trainer import train
from tests.scd_datasets.by_hand import write_dataset


@pytest.fixture
def recording(tmp_path):
    """A replay buffer of 3 episodes of 12 frames, 16 × 16: its lengths are listed, its images not read."""
    import zarr

    root = tmp_path / "recording.zarr"
    group = zarr.open_group(root, mode="w", zarr_format=2)
    arrays = {"data/img": np.zeros((36, 16, 16, 3), np.uint8), "data/action": np.zeros((36, 2), np.float32)}
    arrays |= {"data/state": np.zeros((36, 5), np.float32), "meta/episode_ends": np.array([12, 24, 36])}
    for name, values in arrays.items():
        group.create_array(name, data=values)
    return DataConfig(root=str(root), fps=10)


def test_all_that_a_recording_does_not_allow_is_said_before_it_is_decoded(training, recording, monkeypatch):
    monkeypatch.setattr(trainer_module, "open_store", lambda *_: pytest.fail("it is being decoded"))
    config = training(
        data=replace(recording, image_size=96),
        sequence_length=13,
        eval_context=14,
        init="no/such/world",
        fsdp=True,
    )
    with pytest.raises(ValueError, match="things are wrong") as error:
        train(config)
    for complaint in (
        "data.image_size=96: the images were recorded with 16 pixels",
        "sequence_length=13: the longest training episode has 12 steps",
        "eval_context=14: the longest held-out episode has 12 steps",
        "no/such/world",
        "fsdp=true",
    ):
        assert complaint in str(error.value)


def test_a_recording_of_another_rate_than_the_world_begun_with_is_told_its_stride(
    training, recording, world, tmp_path
):
    fast, folder = replace(recording, fps=30), str(world.save(tmp_path / "slow"))
    with pytest.raises(ValueError, match=r"fps 30, this world was trained with 10: data\.stride=3"):
        check_before_decoding(training(data=fast, init=folder, sequence_length=3, eval_context=1), 1)
    strided = training(data=replace(fast, stride=3), init=folder, sequence_length=3, eval_context=1)
    with pytest.raises(ValueError, match=r"longest .* has 4 steps") as error:  # and not 12
        check_before_decoding(replace(strided, sequence_length=6), 1)
    assert "fps" not in str(error.value)


def test_a_recording_of_another_robot_than_the_world_begun_with_is_refused(
    training, recording, world, tmp_path
):
    folder = world.save(tmp_path / "three_joints")
    settings = json.loads((folder / "config.json").read_text())
    schema = settings["schema"]
    for name in ("action", "action_low", "action_high"):
        schema[name].append(schema[name][-1] if name != "action" else "gripper")
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(
        ValueError, match=r"2 actions .*this world takes 3 .*gripper\): it is of another robot"
    ):
        check_before_decoding(training(data=recording, init=str(folder)), 1)


def of_the_same_robot(world, recording, **changes):
    """The world with the recording's names, but for the changes."""
    source = open_source(recording)
    names = {"cameras": tuple(source.sizes), "agent_pos": source.names("observation.state")}
    names |= {"environment_state": (), "action": source.names("action")}
    return replace(world.schema, **names | changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"cameras": ("top", "wrist")},
            r"has cameras \('image',\), this world was trained with \('top', 'wrist'\)",
        ),
        ({"agent_pos": ("elbow",)}, r"has agent_pos .*this world was trained with \('elbow',\)"),
        ({}, None),
    ],
)
def test_a_world_of_other_cameras_or_joints_is_refused_before_anything_is_decoded(
    world, recording, tmp_path, monkeypatch, changes, said
):
    """All of a recording was decoded, and each of its frames coded, before it was found."""
    schema = of_the_same_robot(world, recording, **changes)
    monkeypatch.setattr(
        open_store_module, "open_or_build", lambda *_, **__: pytest.fail("it is being decoded")
    )
    if said is None:
        check_recording_of(schema, open_source(recording), 1)
        return
    with pytest.raises(ValueError, match=said):
        open_store(recording, tmp_path, world=schema)


def test_what_the_prior_is_to_learn_from_too_is_of_the_same_robot_or_refused_first(
    training, recording, tmp_path
):
    """A codec was learned to its end before another robot's dataset was refused."""
    other = write_dataset(tmp_path / "other")
    config = training(data=recording, sequence_length=4, eval_context=1)
    prior = replace(config.prior, extra_datasets=[str(other)])
    with pytest.raises(ValueError, match="other cannot train this world's state prior"):
        check_before_decoding(replace(config, prior=prior), 1)


def test_a_batch_may_not_hold_each_window_a_hundred_times(training, recording):
    config = training(data=recording, batch_size=2701, sequence_length=4)  # 3 episodes of 9 windows
    with pytest.raises(ValueError, match="batch_size=2701: there are 27 windows of 4 steps"):
        check_before_decoding(config, 1)
    check_before_decoding(replace(config, batch_size=2700), 1)


def test_no_episode_may_be_left(training, recording):
    with pytest.raises(ValueError, match=r"data\.holdout=0\.9: of 3 episode\(s\) none would be left"):
        check_before_decoding(training(data=replace(recording, holdout=0.9)), 1)


def test_held_out_episodes_alone_bound_the_context(training):
    config, long, short = training(eval_context=10), np.array([24, 24]), np.array([8])
    with pytest.raises(ValueError, match="eval_context=10: the longest held-out episode has 8 steps"):
        check_episodes(config, long, short)
    check_episodes(config, long, short[:0])


def test_a_store_s_episodes_are_looked_at_before_pretraining(training, monkeypatch):
    monkeypatch.setattr(Pretraining, "run", lambda *_: pytest.fail("it is pretraining"))
    with pytest.raises(ValueError, match="eval_context=25: the longest held-out episode has 24 steps"):
        train(training(eval_context=25))


def test_frames_are_not_moved_where_something_in_them_stays(training, recording):
    """Asked once all is settled: what scd-train chooses for latents is neither of the two."""
    config = training(data=recording, random_shift=1, sequence_length=3)
    with pytest.raises(ValueError, match="2 things are wrong") as error:
        check_before_decoding(config, 1)
    assert "background that stays" in str(error.value)
    assert "not what the prior draws" in str(error.value)
    chosen = replace(config.model, foreground_weight=0.0, state_filter=True, anchor_frame=True)
    check_before_decoding(replace(config, model=chosen), 1)
    with pytest.raises(ValueError, match="random_shift"):
        replace(config, random_shift=-1)
