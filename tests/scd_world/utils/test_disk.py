"""A full disk is an OSError, whoever writes: on a real small file system, or under a limit on file size."""

from __future__ import annotations

import errno

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from scd_policies import regression
from scd_world.optim.pretraining import PretrainStage
from scd_world.utils.disk import as_os_errors

LARGE = torch.nn.Linear(300, 300)  # 361 kB
FULL = (errno.ENOSPC, errno.EFBIG)


def test_a_world_a_stage_and_a_policy_s_file(small_disk, world):
    world.model.register_buffer("large", torch.zeros(100_000))
    stage = PretrainStage(folder=small_disk / "stage")
    stage.start(LARGE, [], torch.Generator())
    for write in (
        lambda: world.save(small_disk / "world"),
        stage.save,
        lambda: regression.save(LARGE.state_dict(), small_disk / "policy", {}),
    ):
        with pytest.raises(OSError, match=r"No space left|File too large") as full:
            write()
        assert full.value.errno in FULL
    assert not list(small_disk.iterdir())  # it is of no use to fill it


def test_what_is_no_matter_of_the_disk_stays_what_it_is(tmp_path):
    with pytest.raises(SafetensorError, match="header"), as_os_errors():
        raise SafetensorError("Error while deserializing header")
    with pytest.raises(FileNotFoundError), as_os_errors():
        save_file({"a": torch.zeros(1)}, tmp_path / "none" / "a.safetensors")
