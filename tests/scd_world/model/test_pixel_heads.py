"""Both ways from tokens to a frame start at the last frame, and see what they should."""

from __future__ import annotations

import pytest
import torch

from scd_world.model.config import ModelConfig
from scd_world.model.layers import Patches
from scd_world.model.pixel_heads import ConvHead, PatchHead, Warp


def head(kind: str, patch: int = 4) -> torch.nn.Module:
    patches = Patches(cameras=2, height=8, width=12, patch=patch)
    if kind == "patch":
        return PatchHead(32, patches, copy_last=True)
    return ConvHead(
        32,
        patches,
        torch.rand(6, 8, 12),
        channels=8,
        given=PICTURES.get(kind, 1),
        warps=kind == "conv, warp",
        skips=kind == "conv, skip",
    )


PICTURES = {"conv, prior": 2}  # that a head of this kind is given, one otherwise
KINDS = ["conv", "conv, prior", "conv, warp", "conv, skip"]


def given(F: int = 3, N: int = 12, pictures: int = 1) -> tuple[torch.Tensor, ...]:
    """Tokens, condition, pictures, noisy frame and its time."""
    tokens, c = torch.randn(F, 1, N, 32), torch.randn(F, 1, 1, 32)
    return tokens, c, torch.rand(F, 6 * pictures, 8, 12) * 2 - 1, torch.randn(F, 6, 8, 12), torch.rand(F)


@pytest.mark.parametrize("kind", ["patch", *KINDS])
def test_an_untrained_head_mostly_keeps_the_last_frame(kind):
    h, c, seen, x_t, t = given(pictures=PICTURES.get(kind, 1))
    out, last = head(kind)(h, c, seen, x_t, t), seen[:, :6]
    assert out.shape == last.shape
    assert (out - last).abs().mean() < 0.4 * last.abs().mean()


@pytest.mark.parametrize("kind", KINDS)
def test_convolutions_keep_cameras_apart_and_frames_apart(kind):
    made, pictures = head(kind), PICTURES.get(kind, 1)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    h, c, seen, x_t, t = (x.requires_grad_() for x in given(pictures=pictures))
    out = made(h, c, seen, x_t, t)
    of_frame = out[1, :3].square().sum()  # frame 1, first camera
    of_h, of_seen, of_x_t = torch.autograd.grad(of_frame, (h, seen, x_t), materialize_grads=True)
    assert (of_h.abs().amax((1, 3)) > 0).tolist() == [[False] * 12, [True] * 6 + [False] * 6, [False] * 12]
    first = ([True] * 3 + [False] * 3) * pictures
    none = [False] * 6 * pictures
    assert (of_seen.abs().amax((2, 3)) > 0).tolist() == [none, first, none]
    skips = [kind == "conv, skip"] * 3 + [False] * 3
    assert (of_x_t.abs().amax((2, 3)) > 0).tolist() == [[False] * 6, skips, [False] * 6]


def test_a_noisy_frame_that_is_nearly_clear_can_be_kept_and_pure_noise_never_shows():
    made = head("conv, skip", patch=2)
    with torch.no_grad():
        made.draw[-1].bias.view(-1, 4)[3:] = -1e4
        made.draw[-1].bias.view(-1, 4)[-2] = 1e4  # in all pixels the noisy frame is chosen
    _, c, seen, x_t, _ = given()
    tokens = torch.randn(3, 1, 48, 32)
    x, noise = torch.rand(3, 6, 8, 12) * 2 - 1, x_t
    nearly = made(tokens, c, seen, 0.99 * x + 0.01 * noise, torch.full((3,), 0.01))
    torch.testing.assert_close(nearly, x, atol=0.06, rtol=0)
    assert made(tokens, c, seen, noise, torch.ones(3)).abs().max() < 0.01


@pytest.mark.parametrize("share", range(3))
def test_a_pixel_can_be_the_last_frame_the_priors_drawing_or_the_background_itself(share):
    made = head("conv, prior", patch=2)
    with torch.no_grad():
        made.draw[-1].bias.view(7, 4)[3:] = -1e4  # in all four pixels of a cell
        made.draw[-1].bias.view(7, 4)[3 + share] = 1e4
    _, c, seen, x_t, t = given(pictures=2)
    out = made(torch.randn(3, 1, 48, 32), c, seen, x_t, t)
    wanted = [seen[:, :6], seen[:, 6:], made.background.expand(3, -1, -1, -1)][share]
    torch.testing.assert_close(out, wanted, atol=0.01, rtol=0)


def test_a_choice_leaves_no_ghost_of_what_was_not_chosen():
    """With a bound of 4 a logit of 16, and as little for the others, left a hundredth of the last frame."""
    made = head("conv, prior", patch=2)
    with torch.no_grad():
        made.draw[-1].bias.view(7, 4)[3:] = -16.0
        made.draw[-1].bias.view(7, 4)[4] = 16.0
    _, c, seen, x_t, t = given(pictures=2)
    out = made(torch.randn(3, 1, 48, 32), c, seen, x_t, t)
    assert (out - seen[:, 6:]).abs().max() < 1e-3


def test_a_head_that_is_wrong_and_sure_can_still_learn():
    made = head("conv, prior", patch=2)
    with torch.no_grad():
        made.draw[-1].bias.view(7, 4)[4] = 50.0
    _, c, seen, x_t, t = given(pictures=2)
    out = made(torch.randn(3, 1, 48, 32), c, seen, x_t, t)
    (out - seen[:, :6]).square().mean().backward()
    assert made.draw[-1].bias.grad.view(7, 4)[3:5].abs().min() > 1e-5


def pushed(F: int, g: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Squares of 2 × 2 that jump two pixels to the right: tokens (F, 1, 6, 16) of size 1e4 that tell where,
    the last frames and the next ones (F, 3, 8, 12)."""
    last, after = torch.full((2, F, 3, 8, 12), -1.0)
    x, y = torch.randint(8, (F,), generator=g).tolist(), torch.randint(7, (F,), generator=g).tolist()
    for i in range(F):
        last[i, :, y[i] : y[i] + 2, x[i] : x[i] + 2] = 1
        after[i, :, y[i] : y[i] + 2, x[i] + 2 : x[i] + 4] = 1
    tokens = Patches(1, 8, 12, 4)(after[:, None, :1].expand(-1, -1, 3, -1, -1))[..., :16]
    return 1e4 * tokens, last, after


def test_a_gate_that_closed_on_still_pictures_opens_when_something_moves():
    """With no bound its gradient is exactly 0, and the picture never changes again."""
    made, g = PatchHead(16, Patches(1, 8, 12, 4), copy_last=True), torch.Generator().manual_seed(0)
    gate = made.mlp[2].weight[made.patches.values :]
    with torch.no_grad():
        made.modulation[1].bias[16:] = 1e4  # what comes to the last layer has grown without bound, too
        torch.nn.init.normal_(made.mlp[2].weight, std=0.02, generator=g)
        gate.fill_(0.1)
    optimizer, c, losses = torch.optim.AdamW(made.parameters(), lr=2e-3), torch.zeros(8, 1, 1, 16), []
    for step in range(300):
        tokens, last, after = pushed(8, g)
        out = made(tokens, c, last, last, torch.zeros(8))
        loss = (out - after).square().mean()
        losses.append(float(loss.detach() / (last - after).square().mean()))
        optimizer.zero_grad()
        loss.backward()
        assert step or made.mlp[2].weight.grad[made.patches.values :].abs().max() > 1e-6
        optimizer.step()
    assert losses[0] > 0.9  # a copy
    assert losses[-1] < 0.3


def test_a_gate_of_an_older_file_draws_as_it_did():
    made, g = PatchHead(32, Patches(2, 8, 12, 4), copy_last=True, bounded=False), torch.Generator()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=g.manual_seed(parameter.numel()))
    h, c, seen, x_t, t = given()
    shift, scale = made.modulation(c).chunk(2, dim=-1)
    hidden = torch.nn.functional.gelu(made.mlp[0](made.norm(h) * (1 + scale) + shift))
    drawn, logit = made.mlp[2](hidden).split([48, 16], dim=-1)
    drawn, logit = (made.patches.inverse(x)[:, 0] for x in (drawn, logit))
    keep = torch.sigmoid(2.0 + logit).repeat_interleave(3, dim=1)
    assert torch.equal(made(h, c, seen, x_t, t), keep * seen + (1 - keep) * drawn)


def test_a_warp_moves_each_camera_as_its_own_tokens_say():
    """Where all tokens of a camera say the same, all of its pixels come from as many patches away."""
    warp = Warp(2, Patches(cameras=2, height=8, width=12, patch=4))
    with torch.no_grad():
        warp.offset.weight.copy_(torch.eye(2))
    told = torch.tensor([[0.25, 0.0], [0.0, -0.5]])  # right, down, in patches, of each camera
    images = torch.rand(6, 3, 8, 12)
    moved = warp(told.repeat_interleave(6, 0).expand(3, 1, 12, 2), images)
    torch.testing.assert_close(moved[0::2, :, :, :-1], images[0::2, :, :, 1:])
    torch.testing.assert_close(moved[1::2, :, 2:], images[1::2, :, :-2])


def test_what_is_moved_may_be_one_more_image_than_is_mixed():
    """Before it has learnt a head that warps draws what it moves, and of the last frame next to nothing."""
    h, c, seen, x_t, t = given(pictures=2)
    last, carried = seen[:, :6], seen[:, 6:]
    made = head("conv, warp")
    out, of_last = made(h, c, seen, x_t, t), made(h, c, last, x_t, t)
    assert (out - carried).abs().mean() < 0.4 * carried.abs().mean()
    assert (of_last - last).abs().mean() < 0.4 * last.abs().mean()
    assert not torch.allclose(out, of_last)


def test_a_head_that_warps_learns_how_far_a_camera_turned():
    """Each picture is new, so only what moves it can draw the next one."""
    made, g = head("conv, warp"), torch.Generator().manual_seed(0)
    tells, turns = torch.randn(7, 32, generator=g), torch.arange(-3, 4)
    optimizer = torch.optim.AdamW(made.parameters(), lr=5e-3)
    for _ in range(300):
        seen = torch.rand(8, 6, 4, 9, generator=g) * 2 - 1
        wide = torch.nn.functional.interpolate(seen, (8, 18), mode="bilinear")
        which = torch.randint(7, (8,), generator=g)
        first = 3 + turns[which]
        last, after = (
            wide[..., 3:15],
            torch.stack([w[..., i : i + 12] for w, i in zip(wide, first, strict=True)]),
        )
        tokens, nothing = tells[which, None, None].expand(-1, 1, 12, -1), torch.zeros(8, 1, 1, 32)
        out = made(tokens, nothing, last, last, torch.zeros(8))
        loss, copied = (((x - after)[..., 3:-3]).square().mean() for x in (out, last))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * copied


def test_where_there_is_no_anchor_nothing_is_looked_up():
    for changes in ({}, {"anchor_frame": True, "architecture": "copy_last"}):
        with pytest.raises(ValueError, match="anchor_attention looks at the anchor frame"):
            ModelConfig(anchor_attention=True, **changes)


@pytest.mark.parametrize("name", ["warp", "skip_connection", "anchor_frame"])
def test_a_head_that_mixes_nothing_is_not_asked_to(name):
    with pytest.raises(ValueError, match=f"{name} is of head=conv"):
        ModelConfig(head="patch", **{name: True})
