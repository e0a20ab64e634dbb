"""Both ways from tokens to a frame start at the last frame, and see what they should."""

from __future__ import annotations

import pytest
import torch

from scd_world.model.layers import Patches
from scd_world.model.pixel_heads import ConvHead, PatchHead


def head(kind: str, patch: int = 4) -> torch.nn.Module:
    patches = Patches(cameras=2, height=8, width=12, patch=patch)
    if kind == "patch":
        return PatchHead(32, patches, copy_last=True)
    return ConvHead(32, patches, torch.rand(6, 8, 12), channels=8, prior_renders=kind == "conv, prior")


def given(F: int = 3, N: int = 12, pictures: int = 1) -> tuple[torch.Tensor, ...]:
    return torch.randn(F, 1, N, 32), torch.randn(F, 1, 1, 32), torch.rand(F, 6 * pictures, 8, 12) * 2 - 1


@pytest.mark.parametrize("kind", ["patch", "conv", "conv, prior"])
def test_an_untrained_head_mostly_keeps_the_last_frame(kind):
    h, c, seen = given(pictures=2 if kind == "conv, prior" else 1)
    out, last = head(kind)(h, c, seen), seen[:, :6]
    assert out.shape == last.shape
    assert (out - last).abs().mean() < 0.4 * last.abs().mean()


@pytest.mark.parametrize("kind", ["conv", "conv, prior"])
def test_convolutions_keep_cameras_apart_and_frames_apart(kind):
    made, pictures = head(kind), 2 if kind == "conv, prior" else 1
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    h, c, seen = (x.requires_grad_() for x in given(pictures=pictures))
    out = made(h, c, seen)
    of_h, of_seen = torch.autograd.grad(out[1, :3].square().sum(), (h, seen))  # frame 1, first camera
    assert (of_h.abs().amax((1, 3)) > 0).tolist() == [[False] * 12, [True] * 6 + [False] * 6, [False] * 12]
    first = ([True] * 3 + [False] * 3) * pictures
    none = [False] * 6 * pictures
    assert (of_seen.abs().amax((2, 3)) > 0).tolist() == [none, first, none]


@pytest.mark.parametrize("share", range(3))
def test_a_pixel_can_be_the_last_frame_the_priors_drawing_or_the_background_itself(share):
    made = head("conv, prior", patch=2)
    with torch.no_grad():
        made.draw[-1].bias.view(7, 4)[3:] = -1e4  # in all four pixels of a cell
        made.draw[-1].bias.view(7, 4)[3 + share] = 1e4
    _, c, seen = given(pictures=2)
    out = made(torch.randn(3, 1, 48, 32), c, seen)
    wanted = [seen[:, :6], seen[:, 6:], made.background.expand(3, -1, -1, -1)][share]
    torch.testing.assert_close(out, wanted, atol=0.01, rtol=0)


def test_a_choice_leaves_no_ghost_of_what_was_not_chosen():
    """With a bound of 4 a logit of 16, and as little for the others, left a hundredth of the last frame."""
    made = head("conv, prior", patch=2)
    with torch.no_grad():
        made.draw[-1].bias.view(7, 4)[3:] = -16.0
        made.draw[-1].bias.view(7, 4)[4] = 16.0
    _, c, seen = given(pictures=2)
    out = made(torch.randn(3, 1, 48, 32), c, seen)
    assert (out - seen[:, 6:]).abs().max() < 1e-3


def test_a_head_that_is_wrong_and_sure_can_still_learn():
    made = head("conv, prior", patch=2)
    with torch.no_grad():
        made.draw[-1].bias.view(7, 4)[4] = 50.0
    _, c, seen = given(pictures=2)
    out = made(torch.randn(3, 1, 48, 32), c, seen)
    (out - seen[:, :6]).square().mean().backward()
    assert made.draw[-1].bias.grad.view(7, 4)[3:5].abs().min() > 1e-5
