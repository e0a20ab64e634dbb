"""Dense motion learns behind a renderer that is held, and says what it brought."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch

from scd_world.metrics.image import sharpness
from scd_world.prior.config import MotionPretrainConfig, PriorConfig
from scd_world.prior.fit_motion import fit_motion, motion_loss
from scd_world.prior.pretraining_report import motion_result
from scd_world.prior.renderer import StateRenderer
from scd_world.scene.dense_motion import Moved
from scd_world.scene.frames import FramesToDraw
from tests.scd_world.scene.test_dense_motion import SIDE, held


def pairs(first: int, count: int = 16) -> Iterator[FramesToDraw]:
    for number in itertools.count(first):
        obs, shown, *_ = held(count, torch.Generator().manual_seed(number))
        state = (obs[:, 0, 5] > 0.9).float().argmax(-1)[:, None] / SIDE
        there = (shown[:, 0, 5] > 0.9).float().argmax(-1)[:, None] / SIDE
        yield FramesToDraw(obs, state, state, shown, torch.cat([there, there], dim=1))


def some_renderer() -> StateRenderer:
    return StateRenderer(
        1,
        torch.full((3, SIDE, SIDE), -0.5),
        *(4, 16, 16, 4),
        static_layer=True,
        motion_channels=16,
        usual_change=torch.ones(1),
    ).requires_grad_(False)


def test_it_alone_is_learned_and_its_result_is_measured_beside_the_drawing():
    torch.manual_seed(0)
    renderer = some_renderer()
    before = {name: value.clone() for name, value in renderer.state_dict().items()}
    config = MotionPretrainConfig(steps=80, lr=3e-3)
    losses = [loss.item() for loss in fit_motion(renderer, pairs, config, bf16=True)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    after = renderer.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        name for name in before if name.startswith("motion.")
    }
    (result,) = motion_result(renderer, next(pairs(1000)))
    assert not result.failed
    assert result.value > result.baseline_value


def test_a_frame_that_was_shown_itself_is_no_result():
    torch.manual_seed(0)
    renderer, frames = some_renderer(), next(pairs(0))
    itself = FramesToDraw(frames.obs, frames.state, frames.prev, frames.obs, torch.cat([frames.state] * 2, 1))
    both = FramesToDraw(*(torch.cat(values) for values in zip(frames, itself, strict=True)))
    assert motion_result(renderer, both) == motion_result(renderer, frames)
    assert motion_result(renderer, itself) == []


def test_what_is_expected_to_be_off_is_what_was_off_by_camera():
    """By the logarithm: where a frame is right to the last bit nothing less than a gray level is expected."""
    obs = torch.zeros(2, 6, 4, 4)
    frame = torch.tensor([[0.1, 0.4], [0.2, 0.0]]).repeat_interleave(3, 1)[..., None, None].expand_as(obs)
    expected = torch.zeros(2, 2, requires_grad=True)
    optimizer = torch.optim.Adam([expected], 0.1)
    for _ in range(300):
        optimizer.zero_grad()
        motion_loss(Moved(frame, frame, frame, expected), obs).backward()
        optimizer.step()
    off = expected.exp().sqrt()
    torch.testing.assert_close(off, torch.tensor([[0.1, 0.4], [0.2, 0.01]]), rtol=0.02, atol=0.0)


def test_where_nobody_knows_which_grain_it_is_there_is_some():
    """Where each square may as well have the opposite one, none is nearest."""
    generator = torch.Generator().manual_seed(0)
    grain = 0.2 * torch.randn(1, 3, 16, 16, generator=generator)
    sign = torch.randint(2, (16, 1, 4, 4), generator=generator).mul(2.0).sub(1.0)
    either = grain * sign.repeat_interleave(4, 2).repeat_interleave(4, 3)
    guess = (0.1 * grain).requires_grad_()
    optimizer = torch.optim.Adam([guess], 0.01)
    for _ in range(200):
        optimizer.zero_grad()
        frames = guess.expand(16, -1, -1, -1)
        motion_loss(Moved(frames, frames, frames.detach(), torch.zeros(16, 1)), either).backward()
        optimizer.step()
    assert 0.7 < sharpness(guess).item() / sharpness(either).mean().item() < 1.05


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"motion_channels": 8}, r"motion_channels=8 .*set prior\.static_layer=true"),
        ({"motion_channels": 9, "static_layer": True}, r"motion_channels=9: expected a multiple of 8"),
    ],
)
def test_it_needs_what_it_moves_and_channels_that_can_be_normed(wrong, said):
    with pytest.raises(ValueError, match=said):
        PriorConfig(scene_features=3, **wrong)
