"""What a robot may move is found in frames by itself, and what the robot is is left alone."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from scene import COLORS, recording, scenes_of
from torch import Tensor

from scd_world.objects import discover as discovery
from scd_world.objects import expected
from scd_world.objects.discover import (
    discover,
    explained,
    first_guesses,
    fit_picture,
    learn,
    standing_out,
    with_drawn,
)
from scd_world.objects.expected import Recorded
from scd_world.objects.pose import search
from scd_world.objects.scenes import Scenes

COUNT = 64
pytestmark = pytest.mark.usefixtures("hasty_discovery")


def table(shape: str | None):
    frames, state, episode, poses = recording(COUNT, 7, shape)
    scenes, recorded = scenes_of(frames, state, episode)
    return scenes, partial(recorded.tells, state, episode), poses


@pytest.fixture(scope="module")
def the_l():
    scenes, told, poses = table("L")
    return discover(scenes, 1, 0, told), scenes, told, poses


def test_the_l_is_found_and_looks_like_one(the_l):
    (known,), *_ = the_l
    color, cover = known.sprite.image.split([3, 1])
    solid = cover[0] > 0.9
    area = solid.float().mean().item() * (2 * known.sprite.radius) ** 2
    assert area == pytest.approx(16 * 4 + 8 * 4, rel=0.2)
    mean = color[:, solid].mean(1)
    assert (mean - torch.tensor(COLORS["L"])).abs().max() < 0.1


def test_its_turn_is_told_and_follows_the_true_one(the_l):
    (known,), scenes, _, poses = the_l
    assert known.sprite.turns
    pose, _ = search(known.sprite, scenes)
    apart = torch.polar(torch.ones(COUNT), pose[:, 2] - poses[:, 2])
    usual = apart.sum() / apart.sum().abs()  # the picture may be turned as it likes
    off = (apart / usual).angle().abs()
    assert off.median() < 0.03
    assert (off > 0.3).float().mean() < 0.03


def test_the_turn_of_a_disc_is_not_told():
    scenes, told, _ = table("disc")
    (known,) = discover(scenes, 1, 0, told)
    assert not known.sprite.turns


def test_a_robot_alone_is_no_thing():
    scenes, told, _ = table(None)
    assert discover(scenes, 1, 0, told) == []


def test_no_more_is_found_than_there_is(the_l, monkeypatch):
    """Once the L is expected, what is left is the robot."""
    monkeypatch.setattr(discovery, "LOOKED_PAST", 0)
    (known,), scenes, told, _ = the_l
    assert discover(with_drawn(scenes, known.sprite, known.pose), 1, 1, told) == []


def test_first_guesses_are_whole_pieces():
    frames, state, episode, _ = recording(60, 3)
    scenes, _ = scenes_of(frames, state, episode)
    guesses = first_guesses(scenes, torch.Generator().manual_seed(0))
    assert 1 <= len(guesses) <= 6
    assert all(guess.radius < 0.31 * 48 for guess in guesses)


def test_nothing_stands_out_of_a_still_table():
    frames, state, _, _ = recording(1, 3, None)
    scenes, _ = scenes_of(frames.repeat(30, 1, 1, 1), state.repeat(30, 1), torch.arange(30))
    assert not standing_out(scenes).any()
    assert first_guesses(scenes, torch.Generator()) == []


@pytest.mark.parametrize(("color", "table"), [(0.9, 0.3), (-0.9, -0.4), (0.9, -0.4), (-0.1, 0.95)])
def test_a_thing_keeps_its_picture_whatever_it_lies_on(color, table):
    """White on light gray, and black on dark gray, faded away in the fit of what had been found."""
    scenes = of_a_block(torch.full((3,), color), torch.full((3,), table))
    generator = torch.Generator().manual_seed(0)
    sprite = replace(first_guesses(scenes, generator)[0], turns=False)
    before = explained(search(sprite, scenes, 3)[1])
    learnt, after = learn(sprite, scenes, generator)
    assert after >= before > 0
    assert explained(search(learnt, scenes, 3)[1]) == pytest.approx(after)
    assert learnt.image[3].sum() > 0.7 * sprite.image[3].sum()
    (found,) = discover(scenes, 1, 0, lambda _: 0.0)
    assert found.share > 0.9


def test_a_picture_of_what_is_nowhere_stays():
    scenes = of_a_block(torch.full((3,), 0.9), torch.zeros(3))
    sprite = first_guesses(scenes, torch.Generator().manual_seed(0))[0]
    nowhere = torch.zeros(len(scenes))
    assert fit_picture(sprite, scenes, torch.zeros(len(scenes), 3), nowhere, torch.Generator()) is sprite


def of_a_block(color: Tensor, table: Tensor) -> Scenes:
    """Frames of a block of 7 × 5 pixels somewhere on a bare table."""
    g = torch.Generator().manual_seed(1)
    still = table[None, :, None, None].expand(1, 3, 32, 40)
    frames = still.repeat(32, 1, 1, 1)
    for frame, (y, x) in zip(frames, torch.randint(6, 20, (32, 2), generator=g).tolist(), strict=True):
        frame[:, y : y + 7, x : x + 5] = color[:, None, None]
    frames = frames + 0.02 * torch.randn(frames.shape, generator=g)
    return Scenes(frames.clamp(-1, 1), still, torch.zeros(1, 1, 32, 40, dtype=torch.bool))


def test_what_is_expected_of_a_frame_does_not_depend_on_those_beside_it(monkeypatch):
    """One of an episode that nearly all others belong to has too few to ask; the one beside it has enough."""
    monkeypatch.setattr(expected, "AT_ONCE", 1)
    g = torch.Generator().manual_seed(0)
    state, episode = torch.randn(60, 2, generator=g), (torch.arange(60) >= 52).long()
    frames = torch.full((60, 3, 16, 16), 100, dtype=torch.uint8)
    frames[:, :, 4:8, 4:8] = 200  # the robot
    recorded = Recorded(frames, state, episode, torch.full((3, 16, 16), 100, dtype=torch.uint8))
    both = recorded.scenes(frames[:2], state[:2], torch.tensor([7, 0]))
    assert both.robot[0].any()
    assert not both.robot[1].any()
    assert torch.equal(both.expected[1], recorded.scenes(frames[1:2], state[1:2], episode[1:2]).expected[0])
    assert torch.equal(both.expected[:1], recorded.scenes(frames[:1], state[:1], torch.tensor([7])).expected)
