"""A sprite is drawn where its pose says, and its pose found to a small part of a pixel."""

import math

import pytest
import torch
from scene import COLORS, SIDE, cover, picture, random_poses, table

from scd_world.objects.expected import unit
from scd_world.objects.pose import fits, refine, search
from scd_world.objects.scenes import Scenes, crops
from scd_world.objects.sprite import Sprite, draw

RADIUS = 10.0


def l_shape(turns: bool = True) -> Sprite:
    """The L's own picture, read off a frame in which it lies in the middle, unturned."""
    side = 31
    share = cover("L", torch.tensor([SIDE / 2, SIDE / 2, 0.0]))
    image = torch.cat([share * torch.tensor(COLORS["L"])[:, None, None], share[None]])
    steps = (torch.arange(side) + 0.5) / side * 2 - 1
    where = torch.stack(torch.meshgrid(steps, steps, indexing="ij")).flip(0).movedim(0, -1)
    where = where * RADIUS / (SIDE / 2)
    own = torch.nn.functional.grid_sample(image[None], where[None], align_corners=False)[0]
    return Sprite(own, RADIUS, turns)


def scenes(frames: torch.Tensor, robot: torch.Tensor | None = None) -> Scenes:
    nowhere = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.bool)
    return Scenes(unit(frames), table()[None], nowhere if robot is None else robot)


def frames_of(poses: torch.Tensor) -> torch.Tensor:
    return torch.stack([picture([("L", pose)]) for pose in poses])


def turn_error(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return ((a - b + math.pi) % (2 * math.pi) - math.pi).abs()


def test_what_is_drawn_is_what_lies_there():
    pose = torch.tensor([[20.3, 27.8, 1.1]])
    seen = scenes(frames_of(pose))
    cut = crops(seen, pose[:, :2], 12)
    assert (draw(l_shape(), pose, cut.at, cut.expected) - cut.frames).abs().mean() < 0.02


def test_a_pose_nearby_is_corrected():
    poses = random_poses(24, 1)
    off = torch.tensor([1.5, -1.2, 0.15])
    found, gain = refine(l_shape(), scenes(frames_of(poses)), poses + off, 12)
    assert (found[:, :2] - poses[:, :2]).norm(dim=1).median() < 0.05
    assert turn_error(found[:, 2], poses[:, 2]).median() < 0.02
    assert (gain > 0).all()


def test_a_thing_is_found_wherever_it_lies_and_however_it_is_turned():
    poses = random_poses(40, 2)
    found, _ = search(l_shape(), scenes(frames_of(poses)))
    assert (found[:, :2] - poses[:, :2]).norm(dim=1).max() < 0.3
    assert turn_error(found[:, 2], poses[:, 2]).max() < 0.1


def test_half_of_it_may_lie_outside_of_the_image():
    pose = torch.tensor([[24.0, 1.0, 0.4]])
    found, _ = search(l_shape(), scenes(frames_of(pose)))
    assert (found - pose).abs().max() < 0.3


def test_a_robot_in_front_does_not_draw_it_away():
    pose, robot = torch.tensor([24.0, 24.0, 0.7]), torch.tensor([28.0, 20.0, 0.0])
    frame = picture([("L", pose), ("robot", robot)])
    found, _ = search(l_shape(), scenes(frame[None]))
    assert (found[0, :2] - pose[:2]).norm() < 0.3
    assert turn_error(found[0, 2], pose[2]) < 0.1
    assert 0.4 < fits(l_shape(), scenes(frame[None]), found)[0] < 0.95


def test_where_nothing_lies_nothing_fits():
    empty = scenes(picture([])[None])
    found, _ = search(l_shape(), empty)
    assert fits(l_shape(), empty, found)[0] < 0.2


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_smaller_scenes_show_the_same(factor):
    seen = scenes(frames_of(random_poses(2, 3)))
    small = seen.smaller(factor)
    assert small.frames.shape[-1] == SIDE // factor
    assert torch.allclose(small.frames.mean((2, 3)), seen.frames.mean((2, 3)), atol=1e-5)
