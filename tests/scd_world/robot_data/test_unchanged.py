"""What changed has changed in the middle of an image, at its edges and in its corners."""

import pytest
import torch

from scd_world.robot_data.unchanged import unchanged


def test_all_places_of_an_image_change_alike():
    frame = torch.rand(2, 6, 5, 8)
    scale = torch.tensor([0.3, 0.6])
    same = unchanged(frame, frame + 0.6, scale)
    expected = torch.exp(-torch.tensor([4.0, 1.0]))[None, :, None, None]
    torch.testing.assert_close(same, expected.expand(2, 2, 5, 8))
    assert (unchanged(frame, frame, scale) == 1).all()


def test_one_camera_tells_nothing_of_another_and_a_place_of_those_around_it():
    frame, other = torch.zeros(2, 1, 6, 5, 8)
    other[:, 4, 2, 3] = 0.9  # of the second camera's second channel
    same = unchanged(frame, other, torch.tensor(0.1))
    assert (same[:, 0] == 1).all()
    around = torch.zeros(5, 8, dtype=torch.bool)
    around[1:4, 2:5] = True
    assert torch.equal(same[0, 1] < 1, around)
    assert same[0, 1, 2, 3].item() == pytest.approx(torch.tensor(-1.0).exp().item())  # a ninth of .9
