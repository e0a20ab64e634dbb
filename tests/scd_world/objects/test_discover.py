"""What a robot may move is found in frames by itself, and what the robot is is left alone."""

from functools import partial

import pytest
import torch
from scene import COLORS, recording, scenes_of

from scd_world.objects import discover as discovery
from scd_world.objects.discover import discover, first_guesses, standing_out, with_drawn
from scd_world.objects.pose import search

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
