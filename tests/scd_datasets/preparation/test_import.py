"""Imports that are killed go on, episodes decode side by side, and nothing is decoded twice."""

import threading
from pathlib import Path

import numpy as np
import pytest

from scd_datasets.config import CheckConfig, DataConfig, SourceConfig
from scd_datasets.preparation import decode
from scd_datasets.preparation.build import build_once, run_check, usual_store
from scd_datasets.preparation.check import check_dataset, source_digest
from scd_datasets.preparation.open_store import open_store
from scd_datasets.sources.lerobot.reader import LeRobotFolder
from scd_datasets.sources.source import DamagedEpisode
from scd_datasets.store import arrays, known_stores
from scd_datasets.store.store import WindowStore

from ..by_hand import LENGTH, TOP, picture, write_dataset, write_video


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


def kill_at(monkeypatch, index, root, out):
    """Has an import of `root` into `out` killed when it comes to decode episode `index`."""
    pixels = LeRobotFolder.pixels

    def kill(self, episode):
        if episode.index == index:
            raise Killed
        return pixels(self, episode)

    with monkeypatch.context() as patch:
        patch.setattr(LeRobotFolder, "pixels", kill)
        with pytest.raises(Killed):
            check_dataset(LeRobotFolder(root), out)


@pytest.mark.parametrize("times", [1, 2])
def test_a_killed_import_goes_on_where_it_was(tmp_path, monkeypatch, decoded_episodes, times):
    """The store is the same as one written in one go, byte for byte in its fingerprint."""
    monkeypatch.setattr(arrays, "SHARD_FRAMES", 32)  # episodes straddle shards
    monkeypatch.setattr(decode, "MOST_THREADS", 1)
    root = write_dataset(tmp_path / "d", episodes=10)
    whole = check_dataset(LeRobotFolder(root), tmp_path / "whole.zarr").store
    out = tmp_path / "s.zarr"
    for at in (7, 9)[:times]:
        kill_at(monkeypatch, at, root, out)
    assert not out.exists()
    decoded_episodes.clear()
    store = check_dataset(LeRobotFolder(root), out).store
    assert store.fingerprint == whole.fingerprint
    assert min(decoded_episodes) >= 4  # of seven or nine, those in whole shards were not decoded again
    read = [
        WindowStore.open(path).windows(np.arange(10), np.zeros(10, int), LENGTH) for path in (out, whole.path)
    ]
    assert all(np.array_equal(read[0][name], read[1][name], equal_nan=name == "prev") for name in read[0])
    assert not list(tmp_path.glob(".s.zarr.scd-tmp"))


def test_damage_late_in_an_import_costs_no_decoding_again(tmp_path, monkeypatch, decoded_episodes):
    """All damage is named, and who then leaves it out goes on with what was decoded."""
    monkeypatch.setattr(arrays, "SHARD_FRAMES", 32)
    monkeypatch.setattr(decode, "MOST_THREADS", 1)

    def cut(columns):
        if columns["episode_index"][0] in (6, 8):
            columns[TOP][3] = {"bytes": b"no picture", "path": None}

    root = write_dataset(tmp_path / "d", episodes=10, columns=cut)
    with pytest.raises(DamagedEpisode, match=r"episode 6 .*: episode 8\."):
        check_dataset(LeRobotFolder(root), tmp_path / "s.zarr")
    decoded_episodes.clear()
    store = check_dataset(LeRobotFolder(root), tmp_path / "s.zarr", skip_bad=True).store
    assert min(decoded_episodes) >= 4
    assert store.episode_index.tolist() == [0, 1, 2, 3, 4, 5, 7, 9]
    whole = check_dataset(LeRobotFolder(root), tmp_path / "whole.zarr", skip_bad=True)
    assert store.fingerprint == whole.fingerprint


def test_a_damaged_shard_of_a_killed_import_is_decoded_again(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "SHARD_FRAMES", 32)
    monkeypatch.setattr(decode, "MOST_THREADS", 1)
    root, out = write_dataset(tmp_path / "d", episodes=8), tmp_path / "s.zarr"
    kill_at(monkeypatch, 7, root, out)
    flip(tmp_path / ".s.zarr.scd-tmp", shard=1)
    store = check_dataset(LeRobotFolder(root), out).store
    assert store.fingerprint == check_dataset(LeRobotFolder(root), tmp_path / "whole.zarr").fingerprint
    store.verify()


def flip(store, shard):
    """Flips a bit in the middle of a shard of pixels."""
    file = sorted(path for path in (store / "pixels" / "c").rglob("*") if path.is_file())[shard]
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.unlink()  # and not what may be linked to it
    file.write_bytes(damaged)


def test_a_damaged_store_is_built_anew_and_never_linked(tmp_path, decoded_episodes):
    root = write_dataset(tmp_path / "d")
    config = CheckConfig(data=SourceConfig(root=str(root)))
    run_check(config)
    flip(tmp_path / "d.zarr", shard=0)
    decoded_episodes.clear()
    open_store(DataConfig(root=str(root)), tmp_path / "run").verify()
    assert sorted(decoded_episodes) == [0, 1, 2]
    run_check(config)
    WindowStore.open(tmp_path / "d.zarr").verify()


def test_two_that_build_one_store_decode_it_once(tmp_path, decoded_episodes):
    root = write_dataset(tmp_path / "d")
    both = [
        threading.Thread(target=build_once, args=(LeRobotFolder(root), tmp_path / "s.zarr", False))
        for _ in range(2)
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert sorted(decoded_episodes) == [0, 1, 2]


def test_a_store_without_damage_serves_who_would_skip_it(tmp_path, decoded_episodes):
    root = write_dataset(tmp_path / "d")
    open_store(DataConfig(root=str(root), skip_damaged=True), tmp_path / "a")
    open_store(DataConfig(root=str(root)), tmp_path / "b")
    assert sorted(decoded_episodes) == [0, 1, 2]


def test_what_another_import_left_is_not_taken(tmp_path, monkeypatch):
    """Its scratch folder is of other images: a smaller size, or a changed recording."""
    monkeypatch.setattr(arrays, "SHARD_FRAMES", 16)
    root, out = write_dataset(tmp_path / "d", episodes=5), tmp_path / "s.zarr"
    kill_at(monkeypatch, 4, root, out)
    assert list(tmp_path.glob(".s.zarr.scd-tmp"))
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


def test_what_is_found_is_said_in_a_line(tmp_path, caplog):
    """An evaluation need not repeat what the training's log says."""
    caplog.set_level("INFO")
    data = DataConfig(root=str(write_dataset(tmp_path / "d")))
    for name in ("a", "b", "b"):
        open_store(data, tmp_path / name)
    built, linked, unchanged = (record.getMessage() for record in caplog.records)
    assert len(built.splitlines()) > 10
    assert linked.endswith(
        f"linked to {tmp_path}/b/windows.zarr (ready to train; {tmp_path}/b/windows.zarr/report)"
    )
    assert unchanged.startswith("the dataset has not changed")


def test_other_images_are_decoded_anew_and_a_store_that_is_gone_too(tmp_path, decoded_episodes):
    root = write_dataset(tmp_path / "d")
    open_store(DataConfig(root=str(root)), tmp_path / "a")
    open_store(DataConfig(root=str(root), image_size=16), tmp_path / "b")
    assert len(decoded_episodes) == 6
    (tmp_path / "a").rename(tmp_path / "moved")
    open_store(DataConfig(root=str(root)), tmp_path / "c")
    assert len(decoded_episodes) == 9


def test_pictures_that_change_behind_a_link_are_decoded_anew(tmp_path):
    """A folder of videos on another disk: its files were never looked at."""
    root = write_dataset(tmp_path / "d", "v2.1", video=True)
    (root / "videos" / "chunk-000").rename(tmp_path / "elsewhere")
    (root / "videos" / "chunk-000").symlink_to(tmp_path / "elsewhere")
    before = source_digest(LeRobotFolder(root))
    assert source_digest(LeRobotFolder(root)) == before
    write_video(next((tmp_path / "elsewhere").rglob("*.mp4")), [picture(1, i) for i in range(LENGTH)])
    assert source_digest(LeRobotFolder(root)) != before


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
    assert usual_store(repo_id, Path(root)) == Path(expected)


def test_the_folder_that_one_stands_in_has_a_name(tmp_path, monkeypatch):
    (tmp_path / "d").mkdir()
    monkeypatch.chdir(tmp_path / "d")
    assert usual_store(None, Path(".")) == tmp_path / "d.zarr"
    (tmp_path / "d" / "meta").mkdir()
    monkeypatch.chdir(tmp_path / "d" / "meta")
    assert usual_store(None, Path("..")) == tmp_path / "d.zarr"


def test_a_cache_that_cannot_be_written_costs_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("SCD_CACHE", str(tmp_path / "file"))
    assert len(open_store(DataConfig(root=str(write_dataset(tmp_path / "d"))), tmp_path / "a").lengths) == 3
    assert known_stores.find("0" * 64) is None
