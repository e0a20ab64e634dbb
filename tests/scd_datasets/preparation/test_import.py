"""Imports that are killed go on, episodes decode side by side, and nothing is decoded twice."""

import threading
from pathlib import Path

import numpy as np
import pytest

from scd_datasets.config import CheckConfig, DataConfig, SourceConfig
from scd_datasets.preparation import decode
from scd_datasets.preparation.check import check_dataset, run_check, usual_store
from scd_datasets.preparation.open_store import open_store
from scd_datasets.sources.lerobot.reader import LeRobotFolder
from scd_datasets.store import arrays, known_stores
from scd_datasets.store.store import WindowStore

from ..by_hand import LENGTH, write_dataset


@pytest.fixture
def decoded_episodes(monkeypatch):
    """Which episodes were decoded, in any thread."""
    seen, pixels = [], LeRobotFolder.pixels

    def note(self, episode):
        seen.append(episode.index)
        return pixels(self, episode)

    monkeypatch.setattr(LeRobotFolder, "pixels", note)
    return seen


class Killed(BaseException):
    """As a signal is: no Exception."""


@pytest.mark.parametrize("times", [1, 2])
def test_a_killed_import_goes_on_where_it_was(tmp_path, monkeypatch, decoded_episodes, times):
    """The store is the same as one written in one go, byte for byte in its fingerprint."""
    monkeypatch.setattr(arrays, "SHARD_FRAMES", 32)  # episodes straddle shards
    monkeypatch.setattr(decode, "MOST_THREADS", 1)
    root = write_dataset(tmp_path / "d", episodes=10)
    whole = check_dataset(LeRobotFolder(root), tmp_path / "whole.zarr").store
    pixels, out = LeRobotFolder.pixels, tmp_path / "s.zarr"
    for at in (7, 9)[:times]:

        def kill(self, episode, at=at):
            if episode.index == at:
                raise Killed
            return pixels(self, episode)

        monkeypatch.setattr(LeRobotFolder, "pixels", kill)
        with pytest.raises(Killed):
            check_dataset(LeRobotFolder(root), out)
    assert not out.exists()
    monkeypatch.setattr(LeRobotFolder, "pixels", pixels)
    decoded_episodes.clear()
    store = check_dataset(LeRobotFolder(root), out).store
    assert store.fingerprint == whole.fingerprint
    assert min(decoded_episodes) >= 4  # of seven or nine, those in whole shards were not decoded again
    read = [
        WindowStore.open(path).windows(np.arange(10), np.zeros(10, int), LENGTH) for path in (out, whole.path)
    ]
    assert all(np.array_equal(read[0][name], read[1][name], equal_nan=name == "prev") for name in read[0])
    assert not list(tmp_path.glob(".s.zarr.scd-tmp"))


def test_what_another_import_left_is_not_taken(tmp_path, monkeypatch):
    """Its scratch folder is of other images: a smaller size, or a changed recording."""
    monkeypatch.setattr(arrays, "SHARD_FRAMES", 16)
    root = write_dataset(tmp_path / "d", episodes=5)
    pixels, out = LeRobotFolder.pixels, tmp_path / "s.zarr"

    def kill(self, episode):
        if episode.index == 4:
            raise Killed
        return pixels(self, episode)

    monkeypatch.setattr(LeRobotFolder, "pixels", kill)
    with pytest.raises(Killed):
        check_dataset(LeRobotFolder(root), out)
    assert list(tmp_path.glob(".s.zarr.scd-tmp"))
    monkeypatch.setattr(LeRobotFolder, "pixels", pixels)
    small = check_dataset(LeRobotFolder(root, image_size=16), out).store
    assert (
        small.fingerprint
        == check_dataset(LeRobotFolder(root, image_size=16), tmp_path / "o.zarr").fingerprint
    )


def test_episodes_decode_side_by_side_and_come_in_order(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    together = threading.Barrier(3, timeout=10)

    class One:
        def __init__(self, index):
            self.index, self.episode = index, self
            self.length = 5

    def work(one):
        if one.index < 3:
            together.wait()  # passes only if three are under way at a time
        return one.index

    got = [future.result() for _, future in decode.decoded(work, [One(i) for i in range(9)], 1)]
    assert got == list(range(9))


def test_no_more_episodes_are_under_way_than_fit_into_memory(monkeypatch):
    monkeypatch.setattr(decode, "free_memory", lambda: 4 * 10.0)
    begun = []

    class One:
        length = 6

        def __init__(self):
            self.episode = self

    episodes = decode.decoded(lambda one: begun.append(one), [One() for _ in range(5)], frame_bytes=1)
    for count, (_, future) in enumerate(episodes, start=1):
        future.result()
        assert len(begun) == count  # the room is for 10 bytes, an episode takes 6


def test_training_finds_what_scd_data_has_decoded(tmp_path, decoded_episodes, capsys):
    root = write_dataset(tmp_path / "d", "v2.1", video=True)
    run_check(CheckConfig(data=SourceConfig(root=str(root))))
    assert sorted(decoded_episodes) == [0, 1, 2]
    decoded_episodes.clear()
    data = DataConfig(root=str(root))
    first = open_store(data, tmp_path / "run")
    assert (first.path, decoded_episodes) == (tmp_path / "run" / "windows.zarr", [])
    assert first.fingerprint == WindowStore.open(tmp_path / "d.zarr").fingerprint
    run_check(CheckConfig(data=SourceConfig(root=str(root)), out=str(tmp_path / "again.zarr")))
    assert "already decoded" in capsys.readouterr().out
    assert decoded_episodes == []


def test_other_images_are_decoded_anew_and_a_store_that_is_gone_too(tmp_path, decoded_episodes):
    root = write_dataset(tmp_path / "d")
    open_store(DataConfig(root=str(root)), tmp_path / "a")
    open_store(DataConfig(root=str(root), image_size=16), tmp_path / "b")
    assert len(decoded_episodes) == 6
    (tmp_path / "a").rename(tmp_path / "moved")
    open_store(DataConfig(root=str(root)), tmp_path / "c")
    assert len(decoded_episodes) == 9


def test_a_linked_store_outlives_the_one_it_was_linked_from(tmp_path):
    import shutil

    root = write_dataset(tmp_path / "d")
    first = open_store(DataConfig(root=str(root)), tmp_path / "a")
    second = open_store(DataConfig(root=str(root)), tmp_path / "b")
    shutil.rmtree(first.path)
    assert WindowStore.open(second.path).windows(np.array([0]), np.array([0]), 4)["pixels"].any()


@pytest.mark.parametrize(
    ("repo_id", "root", "expected"),
    [
        (None, "data/pusht", "data/pusht.zarr"),
        (None, "data/cchi.zarr", "data/cchi.windows.zarr"),
        ("user/so101", "/home/me/.cache/huggingface/hub/x/snapshots/1f", "so101.zarr"),
    ],
)
def test_a_store_lies_beside_its_recording_but_not_in_a_hubs_cache(repo_id, root, expected):
    assert usual_store(repo_id, Path(root)) == expected


def test_a_cache_that_cannot_be_written_costs_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("SCD_CACHE", str(tmp_path / "file"))
    assert len(open_store(DataConfig(root=str(write_dataset(tmp_path / "d"))), tmp_path / "a").lengths) == 3
    assert known_stores.find("0" * 64) is None
