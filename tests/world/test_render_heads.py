"""Both ways from tokens to a frame start at the last frame, and see what they should."""

from __future__ import annotations

import pytest
import torch

from scd_world.layers import Patches
from scd_world.render_heads import ConvHead, PatchHead


def head(kind: str, patch: int = 4) -> torch.nn.Module:
    patches = Patches(cameras=2, height=8, width=12, patch=patch)
    if kind == "patch":
        return PatchHead(32, patches, copy_last=True)
    return ConvHead(32, patches, torch.rand(6, 8, 12), channels=8)


def given(F: int = 3, N: int = 12) -> tuple[torch.Tensor, ...]:
    return torch.randn(F, 1, N, 32), torch.randn(F, 1, 1, 32), torch.rand(F, 6, 8, 12) * 2 - 1


@pytest.mark.parametrize("kind", ["patch", "conv"])
def test_an_untrained_head_mostly_keeps_the_last_frame(kind):
    h, c, last = given()
    out = head(kind)(h, c, last)
    assert out.shape == last.shape
    assert (out - last).abs().mean() < 0.3 * last.abs().mean()


def test_convolutions_keep_cameras_apart_and_frames_apart():
    made = head("conv")
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    h, c, last = (x.requires_grad_() for x in given())
    out = made(h, c, last)
    of_h, of_last = torch.autograd.grad(out[1, :3].square().sum(), (h, last))  # frame 1, first camera
    assert (of_h.abs().amax((1, 3)) > 0).tolist() == [[False] * 12, [True] * 6 + [False] * 6, [False] * 12]
    assert (of_last.abs().amax((2, 3)) > 0).tolist() == [[False] * 6, [True] * 3 + [False] * 3, [False] * 6]


def test_a_pixel_can_be_the_background_itself():
    made = head("conv", patch=2)
    with torch.no_grad():
        made.draw[-1].bias.view(6, 4)[4] = 50.0  # the share of the background, in all four pixels of a cell
    _, c, last = given()
    out = made(torch.randn(3, 1, 48, 32), c, last)
    torch.testing.assert_close(out, made.background.expand(3, -1, -1, -1))
