"""Raw units to model units and back, also where nothing ever changed."""

from __future__ import annotations

import torch

from scd_world.robot_data.normalizer import decode_pixels, encode_pixels, from_unit, to_unit


def test_ranges_map_to_one_and_back():
    low, high = torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 512.0])
    value = torch.tensor([[-2.0, 512.0], [1.0, 128.0]])
    torch.testing.assert_close(to_unit(value, low, high), torch.tensor([[-1.0, 1.0], [0.5, -0.5]]))
    torch.testing.assert_close(from_unit(to_unit(value, low, high), low, high), value)


def test_a_constant_dimension_stays_small_whatever_its_rounding():
    constant = torch.tensor([512.00006])
    assert to_unit(constant, torch.tensor([512.0]), torch.tensor([512.0])).abs() < 1e-3


def test_pixels_survive_the_way_there_and_back():
    pixels = torch.randint(0, 256, (2, 3, 2, 4, 6, 3), dtype=torch.uint8)
    obs = encode_pixels(pixels)
    assert obs.shape == (2, 3, 6, 4, 6)
    assert torch.equal(decode_pixels(obs), pixels)
    assert torch.equal(
        obs[0, 0, 3:6, 1, 2], pixels[0, 0, 1, 1, 2] / 127.5 - 1
    )  # camera 1's colours, channels 3–5
