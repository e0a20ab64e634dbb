"""A checkpoint is complete and undamaged, or it is passed over for an older one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import scd_world.training.checkpoint as module
from scd_world.training.checkpoint import Checkpoint, Checkpoints
from scd_world.utils.atomic_folder import DamagedFolder, verify, write_folder


def checkpoint(step: int) -> Checkpoint:
    value = {"w": torch.full((4, 3), float(step))}
    return Checkpoint(value, value, value, value, {"step": step})


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # in the tensor's values: safetensors itself would load it
    path.write_bytes(data)


def test_round_trip_is_exact(tmp_path):
    Checkpoints(tmp_path).save(checkpoint(7))
    read = Checkpoints(tmp_path).newest()
    assert read.step == 7
    assert torch.equal(read.weights["w"], checkpoint(7).weights["w"])


def test_nothing_there_is_no_checkpoint(tmp_path):
    assert Checkpoints(tmp_path / "none").newest() is None


def test_old_ones_go_and_last_points_to_the_newest(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(checkpoint(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "step_00000002", "step_00000003"]
    assert (tmp_path / "last").resolve().name == "step_00000003"


def test_a_flipped_byte_falls_back_to_the_older_one(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(checkpoint(1))
    flip_byte(checkpoints.save(checkpoint(2)) / "weights.safetensors")
    assert checkpoints.newest().step == 1
    assert "weights.safetensors" in caplog.text


def test_all_damaged_is_an_error_not_a_fresh_start(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    flip_byte(checkpoints.save(checkpoint(1)) / "ema.safetensors")
    with pytest.raises(DamagedFolder, match="none of the 1 checkpoints"):
        checkpoints.newest()


@pytest.mark.parametrize("files_written", [0, 1, 3])
def test_dying_while_writing_leaves_the_old_one(tmp_path, monkeypatch, files_written):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(checkpoint(1))
    count, save_file = [0], module.save_file

    def dies(*args):
        if count[0] == files_written:
            raise KeyboardInterrupt
        count[0] += 1
        save_file(*args)

    monkeypatch.setattr(module, "save_file", dies)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(checkpoint(2))
    assert checkpoints.newest().step == 1


def test_leftovers_of_a_killed_writer_are_not_checkpoints(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(checkpoint(1))
    (tmp_path / ".step_00000002.scd-tmp").mkdir()
    (tmp_path / "step_00000003").mkdir()  # no manifest
    assert checkpoints.newest().step == 1
    checkpoints.save(checkpoint(4))
    assert not list(tmp_path.glob(".*.scd-tmp"))


def test_a_full_disk_says_how_much_is_missing_and_what_is_kept(small_disk):
    checkpoints = Checkpoints(small_disk)
    checkpoints.save(checkpoint(1))
    large = {"w": torch.zeros(100_000)}
    said = r"it takes 1\.6 MB, and \S+ MB are free; step_00000001 is untouched: make room"
    with pytest.raises(OSError, match=said):
        checkpoints.save(Checkpoint(large, large, large, large, {"step": 2}))
    assert checkpoints.newest().step == 1
    assert not list(small_disk.glob(".*.scd-tmp"))


def test_a_folder_of_links_is_whole_as_the_hubs_cache_lays_it(tmp_path):
    write_folder(tmp_path / "it", lambda folder: (folder / "data").write_text("content"))
    blobs, snapshot = tmp_path / "cache" / "blobs", tmp_path / "cache" / "snapshots" / "revision"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for file in (tmp_path / "it").iterdir():
        file.rename(blobs / f"blob of {file.name}")
        (snapshot / file.name).symlink_to(f"../../blobs/blob of {file.name}")
    verify(snapshot)
    (blobs / "blob of data").write_text("changed")
    with pytest.raises(DamagedFolder, match="changed"):
        verify(snapshot)


def test_a_manifest_cannot_name_files_outside_its_folder(tmp_path):
    folder = tmp_path / "f"
    write_folder(folder, lambda temp: (temp / "a").write_text("a"))
    (tmp_path / "secret").write_text("s")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"]["../secret"] = "0"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedFolder, match="outside"):
        verify(folder)


def test_replacing_a_folder_that_fails_keeps_the_old_one(tmp_path):
    folder = tmp_path / "f"
    write_folder(folder, lambda temp: (temp / "a").write_text("old"))

    def fails(temp):
        (temp / "a").write_text("new")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        write_folder(folder, fails)
    verify(folder)
    assert (folder / "a").read_text() == "old"
