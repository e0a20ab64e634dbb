"""Of pairs of frames it is found which cameras ride, how the state moves them, and what stands out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scd_world.model.prior import Scene
from scd_world.optim.pretraining import PretrainStage
from scd_world.scene.cameras import FOCAL_LENGTH, RidingCameras, by_camera, sample
from scd_world.scene.fit_cameras import (
    FARTHEST,
    NEARER,
    NEAREST,
    Sight,
    farthest,
    fit_heights,
    fit_poses,
    keep_riding,
)
from scd_world.scene.frames import FramesToDraw
from scd_world.scene.static_layer import Heights
from tests.scd_world.scene.test_static_layer import of_an_arm_and_a_block

LAG = 0.4  # of a step that pictures are older than states
SIDE = 24
SHIFT = 0.2  # of half an image that a table goes by when a camera goes to the side


def on_a_wrist() -> RidingCameras:
    """A camera that one joint turns about its own axis, and another one swings over the table."""
    cameras = RidingCameras(2, 1).requires_grad_(False)
    cameras.set_moves(torch.ones(1))
    cameras.twists[0] = torch.tensor([[0.0, 0.0, 0.4, 0.0, 0.0, 0.0], [0.0, 0.15, 0.0, 0.3, 0.05, 0.0]])
    cameras.lag.fill_(LAG)
    return cameras


def pairs(count: int, generator: torch.Generator) -> FramesToDraw:
    """Frames of a table that is another one in every episode."""
    cameras = on_a_wrist()
    then = 0.5 * torch.randn(count, 2, generator=generator)
    now = then + 0.5 * torch.randn(count, 2, generator=generator)
    before, last = (n + 0.1 * torch.randn(count, 2, generator=generator) for n in (then, now))
    table = torch.randn(count, 3, 8, 8, generator=generator)
    table = F.interpolate(table, (4 * SIDE, 4 * SIDE), mode="bicubic", align_corners=False)

    def picture(state: Tensor, earlier: Tensor) -> Tensor:
        """What is seen of a table twice as wide as an image, laid out as the camera sees it at 0."""
        zero = torch.zeros_like(state)
        flat = torch.zeros(count, 1, SIDE, SIDE)
        scene = Scene(zero[:, :0], cameras.poses(zero, zero), flat, table)
        where = cameras.look_back(scene, state, earlier) / 2
        return sample(by_camera(table[:, None]).flatten(2, 3), where, (SIDE, SIDE))[:, 0].clamp(-1, 1)

    return FramesToDraw(picture(now, last), now, last, picture(then, before), torch.cat([then, before], 1))


def beside_a_gripper(count: int, generator: torch.Generator) -> FramesToDraw:
    """The same with what the camera takes along: a third of the picture, and most of its contrast."""
    some = pairs(count, generator)
    columns = torch.arange(SIDE) % 4 < 2

    def beside(frames: Tensor) -> Tensor:
        gripper = torch.where(columns, 1.0, -1.0).expand(count, 3, SIDE // 3, SIDE)
        return torch.cat([gripper, frames[:, :, SIDE // 3 :] / 2], dim=2)

    return some._replace(obs=beside(some.obs), shown=beside(some.shown))


def of_a_red_box(count: int, generator: torch.Generator) -> FramesToDraw:
    """Frames of a box on a table, seen by a camera that goes to the side: as high as the camera is half, it
    moves twice as far in the picture as the table does."""
    waves = 6 * torch.randn(count, 2, 3, 1, generator=generator)
    place = 0.6 * torch.rand(count, 1, generator=generator) - 0.3
    columns = (2 * torch.arange(SIDE) + 1.0) / SIDE - 1

    def picture(state: Tensor) -> Tensor:
        table = (waves[:, 0] * (columns + SHIFT * state)[:, None] + waves[:, 1]).sin() / 2  # (F, 3, W)
        table = table[:, :, None] * torch.linspace(0.5, 1, SIDE)[:, None]
        on_it = ((columns + 2 * SHIFT * state - place).abs() < 0.3)[:, None, None]
        on_it = on_it & ((torch.arange(SIDE) - SIDE / 2).abs() < 6)[:, None]
        red = torch.tensor([1.0, -1.0, -1.0])[:, None, None].expand_as(table)
        return torch.where(on_it, red, table)

    now, then = torch.randn(2, count, 1, generator=generator).clamp(-1.5, 1.5)
    return FramesToDraw(picture(now), now, now, picture(then), torch.cat([then, then], 1))


def endless(
    make: Callable[[int, torch.Generator], FramesToDraw],
) -> Callable[[int, Callable[[int], int]], Iterator[FramesToDraw]]:
    return lambda first, _: (make(16, torch.Generator().manual_seed(i)) for i in itertools.count(first))


def new_sight(size: int) -> Sight:
    torch.manual_seed(0)
    return Sight(RidingCameras(size, 1), Heights(3), torch.zeros(1, 3, SIDE, SIDE))


def test_pairs_are_near_first():
    assert farthest(0.0) == farthest(0.2) == NEAREST < farthest(0.5) < farthest(1.0) == FARTHEST


@pytest.mark.parametrize(("seconds", "steps"), [(math.inf, 10), (0.2, 10**6)])
def test_pairs_are_far_in_the_end_whatever_ends_it(seconds, steps):
    """They are what it is then judged by, and half of a course would find a few frames' turns alone."""
    asked = []

    def frames(first: int, apart: Callable[[int], int]) -> Iterator[FramesToDraw]:
        for update in itertools.count(first):
            asked.append(apart(update))
            yield pairs(2, torch.Generator().manual_seed(update))

    for _ in fit_poses(new_sight(2), frames, steps, PretrainStage(seconds)):
        pass
    assert asked[0] == NEAREST
    assert asked == sorted(asked)
    assert asked[-1] > 0.8 * FARTHEST


@pytest.mark.slow
@pytest.mark.parametrize("seen", [pairs, beside_a_gripper])
def test_the_chain_of_joints_is_found(seen):
    """Axes, angles and lag, of pictures and states alone: they are those that it was drawn with."""
    sight, true = new_sight(2), on_a_wrist()
    for _ in fit_poses(sight, endless(seen), 250, PretrainStage()):
        pass
    (ratio,) = keep_riding(sight, [seen(64, torch.Generator().manual_seed(10_000))])
    assert ratio < 0.5
    assert sight.cameras.any_moves
    assert sight.cameras.lag.item() == pytest.approx(LAG, abs=0.1)
    turns, true_turns = (of.twists[0, :, :3].norm(dim=-1) for of in (sight.cameras, true))
    torch.testing.assert_close(turns[0], true_turns[0], atol=0.08, rtol=0)


@pytest.mark.slow
def test_a_gripper_does_not_hold_a_camera_back_while_heights_are_learned():
    """It is as high as the camera itself, and what is seen of the table says where that went."""
    sight, true = new_sight(2), on_a_wrist()
    sight.cameras.load_state_dict(true.state_dict())
    for _ in fit_heights(sight, endless(beside_a_gripper), 100, PretrainStage()):
        pass
    torch.testing.assert_close(sight.cameras.twists.data, true.twists.data, atol=0.006, rtol=0)


@pytest.mark.slow
def test_a_camera_that_does_not_ride_stays_where_it_is():
    """Though an arm moves in its picture, and never far from a block."""
    sight = new_sight(1)
    for _ in fit_poses(sight, endless(of_an_arm_and_a_block), 200, PretrainStage()):
        pass
    (ratio,) = keep_riding(sight, [of_an_arm_and_a_block(64, torch.Generator().manual_seed(10_000))])
    assert ratio > NEARER
    assert not sight.cameras.any_moves
    still, state = torch.rand(4, 3, SIDE, SIDE), torch.rand(4, 1)
    scene = Scene(state[:, :0], sight.cameras.poses(state, state), still[:, :1], still)
    assert sight.cameras.seen_at(None, scene, still[:1]) is still


@pytest.mark.slow
def test_what_stands_out_is_told_by_its_looks():
    """A red box stands over the table: seen so, one frame is nearer to another than as a plane."""
    sight, unseen = new_sight(1), of_a_red_box(64, torch.Generator().manual_seed(10_000))
    sight.cameras.set_moves(torch.ones(1))
    sight.cameras.twists.data[0, 0, 3] = SHIFT / FOCAL_LENGTH
    flat = sight.loss(unseen, heights=False, blur=1)
    for _ in fit_heights(sight, endless(of_a_red_box), 100, PretrainStage()):
        pass
    with torch.no_grad():
        height = sight.heights(unseen.shown, sight.background)
        assert sight.loss(unseen, heights=True, blur=1) < 0.6 * flat
    red = unseen.shown[:, :1] == 1
    assert height[red].median() > height[~red].median() + 0.25
