"""A strided recording: every n-th frame as it was recorded, and one action that stands for n."""

import copy

import numpy as np
import pytest

from scd_datasets.config import DataConfig, SourceConfig
from scd_datasets.preparation.open_store import open_store
from scd_datasets.sources.lerobot.reader import LeRobotFolder
from scd_datasets.sources.open_source import open_source
from scd_datasets.sources.source import DamagedEpisode
from scd_datasets.sources.strided import Strided, any_of, first_of, last_of, mean_of, sum_of

from ..by_hand import LENGTH, TOP, write_dataset
from .hdf5.test_episodes import robomimic
from .hdf5.test_recording import recording
from .replay.test_buffer import pusht


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 9])
@pytest.mark.parametrize("shape", [(7,), (7, 2)])
def test_a_step_takes_the_frames_from_one_kept_frame_to_the_next(n, shape):
    """Also the last one, which may have fewer."""
    values = np.random.default_rng(0).normal(size=shape)
    parts = [values[first : first + n] for first in range(0, 7, n)]
    np.testing.assert_array_equal(first_of(values, n), [part[0] for part in parts])
    np.testing.assert_array_equal(last_of(values, n), [part[-1] for part in parts])
    np.testing.assert_allclose(sum_of(values, n), [part.sum(0) for part in parts])
    np.testing.assert_allclose(mean_of(values, n), [part.mean(0) for part in parts])
    np.testing.assert_array_equal(any_of(values > 1, n), [(part > 1).any(0) for part in parts])


def integrator(columns):
    """A robot that moves by its action, another one in every frame."""
    move(columns, lambda action: np.cumsum(action, axis=0))


def servo(columns):
    """A robot that a frame later is where it was sent."""
    move(columns, lambda action: action)


def move(columns, leads_to):
    action = np.random.default_rng(columns["episode_index"][0]).normal(size=(LENGTH, 2))
    state = np.vstack([np.zeros(2), leads_to(action)[:-1]])
    columns["action"] = action.astype(np.float32).tolist()
    columns["observation.state"] = np.hstack([state, state[:, :1]]).astype(np.float32).tolist()


@pytest.mark.parametrize(("columns", "chosen"), [(integrator, "mean"), (servo, "last")])
@pytest.mark.parametrize("n", [2, 3])
def test_the_recording_chooses_the_action_that_tells_the_next_state(tmp_path, columns, chosen, n):
    recorded = LeRobotFolder(write_dataset(tmp_path / "d", episodes=12, columns=columns))
    source = Strided(recorded, n)
    assert source.stride.action == chosen
    other = {"mean": "last", "last": "mean"}[chosen]
    assert source.fit[chosen] > 0.95 > source.fit[other]
    (said,) = (finding.done for finding in source.findings() if finding.where == f"stride {n}")
    assert said.startswith(
        f"the {chosen} action of {n} frames stands for them; it tells the next state better"
    )
    actions, long = (s.low_dim(s.episodes[0])["action"] for s in (recorded, source))
    expected = (
        actions[n - 1 :: n] if chosen == "last" else actions[: LENGTH // n * n].reshape(-1, n, 2).mean(1)
    )
    np.testing.assert_allclose(long[: len(expected)], expected, rtol=1e-6)


def test_damage_does_not_choose(tmp_path):
    """It is found after the choice, and left out by who skips it."""

    def damage(columns):
        servo(columns)
        if columns["episode_index"][0] == 1:
            columns["observation.state"][4] = [1e30, 0, 0]
        if columns["episode_index"][0] == 2:
            columns["action"][4] = [np.nan, 0]
        if columns["episode_index"][0] == 5:
            columns["observation.state"][4] = [1e300, 0, 0]

    root = write_dataset(tmp_path / "d", episodes=12, columns=damage)
    (root / "data" / "chunk-000" / "file-003.parquet").write_bytes(b"")
    assert Strided(LeRobotFolder(root), 3).stride.action == "last"


def test_where_no_state_tells_it_is_the_last(tmp_path):
    source = Strided(LeRobotFolder(write_dataset(tmp_path / "d", columns=lambda c: c.pop("observation.state"),
                                                 features={"observation.state": None})), 3)  # fmt: skip
    assert (source.fit, source.stride.action) == ({}, "last")
    assert "no state tells what the others did" in source.findings()[-1].done


def test_a_state_that_never_moves_and_episodes_of_one_step_choose_nothing(tmp_path):
    def still(columns):
        columns["observation.state"] = [[1, 2, 3]] * LENGTH

    assert Strided(LeRobotFolder(write_dataset(tmp_path / "d", columns=still)), 3).fit == {}
    assert Strided(LeRobotFolder(write_dataset(tmp_path / "e")), LENGTH + 1).fit == {}


def lerobot_images(folder):
    return {"root": str(write_dataset(folder / "d"))}


def lerobot_videos(folder):
    return {"root": str(write_dataset(folder / "d", "v2.1", video=True, fps=30))}


def replay_buffer(folder):
    return {"root": str(pusht(folder / "replay.zarr")), "fps": 10}


def robomimic_file(folder):
    pytest.importorskip("h5py")
    return {"root": str(robomimic(folder / "image.hdf5"))}


def stable_worldmodel_file(folder):
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "pusht.h5", "w") as out:
        for name, values in recording().items():
            out.create_dataset(name, data=values, chunks=(1, *values.shape[1:]))
    return {"root": str(folder / "pusht.h5"), "fps": 10}


KINDS = [lerobot_images, lerobot_videos, replay_buffer, robomimic_file, stable_worldmodel_file]


@pytest.mark.parametrize("write", KINDS)
@pytest.mark.parametrize("n", [2, 3])
def test_state_and_pixels_are_exactly_every_nth_of_any_kind_of_recording(tmp_path, write, n):
    source = write(tmp_path)
    whole = open_store(DataConfig(**source), tmp_path / "whole")
    store = open_store(DataConfig(**source, stride=n), tmp_path / "strided")
    assert store.schema.fps == pytest.approx(whole.schema.fps / n)
    assert store.lengths.tolist() == [len(range(0, length, n)) for length in whole.lengths]
    assert (store.stride.frames, whole.stride) == (n, None)
    for episode, length in enumerate(store.lengths):
        long, short = (
            one.windows(np.array([episode]), np.array([0]), one.lengths[episode] - 1)
            for one in (whole, store)
        )
        assert long["pixels"].shape[1] == whole.lengths[episode]
        np.testing.assert_array_equal(short["pixels"][0], long["pixels"][0, ::n])
        np.testing.assert_array_equal(short["state"][0], long["state"][0, ::n])
        sums = sum_of(long["reward"][0], n)[: length - 1]
        np.testing.assert_allclose(short["reward"][0], sums, rtol=1e-6)
        np.testing.assert_array_equal(short["success"][0], any_of(long["success"][0], n)[: length - 1])
    assert store.reward.sum() == pytest.approx(whole.reward.sum())  # nor is a tail's lost
    assert bool(store.success.any()) == bool(whole.success.any())


def test_a_strided_source_can_be_copied(tmp_path):
    source = open_source(SourceConfig(root=str(write_dataset(tmp_path / "d")), stride=3))
    assert copy.copy(source).fps == pytest.approx(10 / 3)


def test_a_video_that_ends_early_is_damage_whatever_is_left_out(tmp_path):
    """Its header tells, at the recorded rate."""
    root = write_dataset(tmp_path / "d", video=True, rows=lambda rows: rows[1].update(length=LENGTH + 2),
                         columns=lambda c: longer(c) if c["episode_index"][0] == 1 else None)  # fmt: skip
    source = open_source(SourceConfig(root=str(root), stride=3))
    with pytest.raises(DamagedEpisode, match=f"has {LENGTH} of the episode's {LENGTH + 2} frames"):
        source.check_files(source.episodes[1])
    with pytest.raises(DamagedEpisode, match=TOP):
        source.pixels(source.episodes[1])


def longer(columns):
    """Two rows more."""
    for name, values in columns.items():
        values += [values[-1]] * 2 if name not in ("timestamp", "frame_index") else []
    columns["timestamp"] += [LENGTH / 10, (LENGTH + 1) / 10]
    columns["frame_index"] += [LENGTH, LENGTH + 1]
