"""Raw units to model units and back, also where nothing ever changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from scd_world.robot_data.normalizer import Normalizer, decode_pixels, encode_pixels, from_unit, to_unit
from tests.conftest import SCHEMA


def test_ranges_map_to_one_and_back():
    low, high = torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 512.0])
    value = torch.tensor([[-2.0, 512.0], [1.0, 128.0]])
    torch.testing.assert_close(to_unit(value, low, high), torch.tensor([[-1.0, 1.0], [0.5, -0.5]]))
    torch.testing.assert_close(from_unit(to_unit(value, low, high), low, high), value)


def test_a_constant_dimension_stays_small_whatever_its_rounding():
    constant = torch.tensor([512.00006])
    assert to_unit(constant, torch.tensor([512.0]), torch.tensor([512.0])).abs() < 1e-3


def test_an_action_that_never_moved_says_nothing_whatever_is_sent():
    """At 1 per raw unit, an angle in degrees became an input of ninety, to weights that never had one."""
    stats = replace(
        Normalizer.neutral(SCHEMA),
        action_low=torch.tensor([-1.5, 1000.0]),
        action_high=torch.tensor([-1.5, 1000.0001]),
    )
    assert stats.constant_actions.tolist() == [True, True]
    assert torch.equal(stats.encode_action(torch.tensor([[90.0, -1e6]])), torch.zeros(1, 2))
    moving = replace(stats, action_high=torch.tensor([-1.5, 1001.0]))
    assert moving.encode_action(torch.tensor([90.0, 1001.0])).tolist() == [0.0, 1.0]


def test_an_action_that_nobody_knows_is_no_action_though_none_ever_moved():
    low = torch.tensor([-1.5, 2.0])
    stats = replace(
        Normalizer.neutral(SCHEMA), action_low=low, action_high=low, hold_action=torch.full((2, 4), 0.25)
    )
    unknown, known = torch.full((2,), torch.nan), low
    prev = torch.stack([torch.cat([torch.zeros(3), action]) for action in (unknown, known)])
    assert stats.encode_prev(prev)[:, 3:].tolist() == [[0.25, 0.25], [0.0, 0.0]]


def test_a_schema_gives_every_action_a_width():
    """And one that a float32 can tell from none, around zero as around a thousand."""
    schema = replace(SCHEMA, action_low=(0.0, -1000.0), action_high=(0.0, -1000.0))
    low, high = (np.array(bound, np.float32) for bound in schema.action_bounds)
    np.testing.assert_allclose(high - low, [2e-3, 2.0], rtol=1e-3)
    assert schema.constant_actions == (0, 1)
    assert (SCHEMA.action_bounds, SCHEMA.constant_actions) == ((SCHEMA.action_low, SCHEMA.action_high), ())


def test_pixels_survive_the_way_there_and_back():
    pixels = torch.randint(0, 256, (2, 3, 2, 4, 6, 3), dtype=torch.uint8)
    obs = encode_pixels(pixels)
    assert obs.shape == (2, 3, 6, 4, 6)
    assert torch.equal(decode_pixels(obs), pixels)
    assert torch.equal(
        obs[0, 0, 3:6, 1, 2], pixels[0, 0, 1, 1, 2] / 127.5 - 1
    )  # camera 1's colours, channels 3–5


def test_which_joint_follows_which_command_is_kept_and_older_files_know_of_none(tmp_path):
    plain, file = Normalizer.neutral(SCHEMA), tmp_path / "stats.safetensors"
    plain.save(file)
    assert "commanded_by" not in load_file(file)  # as worlds always were, where there is none
    assert Normalizer.load(file).joints.tolist() == []
    arm = replace(plain, commanded_by=torch.tensor([1.0, -1.0, 0.0]))
    arm.save(file)
    read = Normalizer.of_schema(load_file(file), SCHEMA)
    assert (read.joints.tolist(), read.commands.tolist()) == ([0, 2], [1, 0])
    assert Normalizer.of_schema(plain.tensors, SCHEMA).joints.tolist() == []


@pytest.mark.parametrize("command", [2.0, -2.0, 0.5])
def test_a_command_that_no_action_is_is_refused(command):
    stats = replace(Normalizer.neutral(SCHEMA), commanded_by=torch.tensor([command, -1.0, 0.0]))
    with pytest.raises(ValueError, match="expected one of 2 actions for each number of the state, or -1"):
        Normalizer.of_schema(stats.tensors, SCHEMA)
