"""What is moved: each camera by its own tokens, a chain of motions without blur, training as in stepping."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from scd_world.model.layers import Patches
from scd_world.model.motion import Motion, follow, sample
from scd_world.model.world_model import WorldModel, observe_context
from scd_world.world.world import World
from tests.conftest import CONFIG, SCHEMA, filled, make_model, make_stats

PATCHES = Patches(cameras=2, height=8, width=12, patch=4)  # 2 × 3 patches of each camera


@pytest.fixture
def moving() -> WorldModel:
    """A model with filled weights whose motions are of a fraction of a patch."""
    model = filled(make_model(replace(CONFIG, warp=True), SCHEMA, make_stats(SCHEMA)))
    model.motion.offset[2].weight.data *= 0.3
    return model.eval()


def test_before_training_nothing_moves():
    motion, frames = Motion(16, PATCHES), torch.rand(3, 2, 6, 8, 12)
    moved = motion.clip(torch.randn(3, 2, 13, 16), frames)
    torch.testing.assert_close(moved[:, :, :6], frames)
    torch.testing.assert_close(moved[:, :, 6:], frames[:, :1].expand_as(frames))


def test_a_camera_moves_as_its_own_tokens_say():
    """In patches: where all tokens of a camera say the same, all of its cells come from as far away."""
    motion = Motion(2, PATCHES)
    told = torch.tensor([[0.25, 0.0], [0.0, -0.5]])  # right, down
    motion.norm, motion.offset = torch.nn.Identity(), SaysAll()
    tokens = torch.cat([told.repeat_interleave(6, 0), torch.zeros(1, 2)])[None]
    frame = torch.rand(1, 6, 8, 12)
    moved, _ = motion.step(tokens, frame, *motion.start(frame))
    torch.testing.assert_close(moved[:, :3, :, :-1], frame[:, :3, :, 1:])  # the last frame
    torch.testing.assert_close(moved[:, 3:6, 2:], frame[:, 3:, :-2])
    torch.testing.assert_close(moved[:, 6:], moved[:, :6])  # and the anchor, which it still is


class SaysAll(torch.nn.Module):
    """Says for all four places of a patch what its token holds."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.repeat(1, 1, 4)


def test_a_frame_that_went_and_came_back_is_what_it_was():
    """Moved step after step it would have blurred; the places do not."""
    motion, frame = Motion(4, Patches(cameras=2, height=8, width=48, patch=4)), torch.rand(1, 6, 8, 48)
    _, origin = motion.start(frame)
    redrawn = frame
    for x in (0.4, -0.4) * 8:  # cells
        where = (motion.identity + torch.tensor([2 * x / 48, 0.0])).expand(1, 2, -1, -1, -1)
        origin, redrawn = follow(origin, where), sample(redrawn, where)
    inside = (..., slice(12, -12))  # beyond the border nothing is known
    torch.testing.assert_close(sample(frame, origin)[inside], frame[inside], atol=1e-4, rtol=0)
    assert (redrawn - frame)[inside].abs().mean() > 0.1


def test_a_clip_at_once_is_moved_as_step_by_step(moving):
    tokens, frames = torch.randn(3, 4, 13, 32), torch.rand(3, 4, 6, 8, 12)
    at_once = moving.motion.clip(tokens, frames)
    anchor, origin = moving.motion.start(frames[:, 0])
    for t in range(4):
        moved, origin = moving.motion.step(tokens[:, t], frames[:, t], anchor, origin)
        torch.testing.assert_close(at_once[:, t], moved)
    assert (moved[:, :6] - moved[:, 6:]).abs().max() > 0.1


def test_motion_learns_how_far_a_camera_turned():
    """Each picture is new, so only what moves it can tell the next one."""
    motion, g = Motion(16, PATCHES), torch.Generator().manual_seed(0)
    tells, turns = torch.randn(7, 16, generator=g), torch.arange(-3, 4)
    optimizer = torch.optim.AdamW(motion.parameters(), lr=5e-3)
    for _ in range(400):
        wide = torch.nn.functional.interpolate(torch.rand(8, 6, 4, 9, generator=g), (8, 18), mode="bilinear")
        which = torch.randint(7, (8,), generator=g)
        last = wide[..., 3:15]
        after = torch.stack([w[..., 3 + d : 15 + d] for w, d in zip(wide, turns[which], strict=True)])
        moved = motion.clip(tells[which, None, None].expand(-1, 1, 13, -1), last[:, None])[:, 0, :6]
        loss, copied = (((x - after)[..., 3:-3]).square().mean() for x in (moved, last))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * copied


def test_the_anchor_is_the_frame_that_was_last_shown(moving, clip):
    s = observe_context(moving, clip, 3)
    assert torch.equal(s.anchor, clip.obs[:, 2])
    shown = s.origin.clone()
    for i in (2, 3):
        s = moving.imagine(s, clip.action[:, i], torch.randn_like(s.obs))
        assert torch.equal(s.anchor, clip.obs[:, 2])
    assert not torch.equal(s.origin, shown)
    s = moving.observe(s, clip.action[:, 4], clip.obs[:, 5], clip.state[:, 5])
    assert torch.equal(s.anchor, clip.obs[:, 5])
    assert torch.equal(s.origin, shown)


def test_a_row_that_starts_anew_is_as_a_fresh_episode(moving, world):
    world = World(moving, world.stats, world.starts)
    starts = [world.starts.get(4, 3, 3), world.starts.get(7, 5, 3), world.starts.get(7, 8, 3)]
    action = torch.tensor([[0.5, 100.0]])
    noise = torch.randn(2, *world.frame_shape)
    s = world.step(world.reset(starts[:2]), action.expand(2, -1), noise)
    world.reset_rows(s, [0], [starts[2]])
    s = world.step(s, action.expand(2, -1), noise)
    alone = world.step(world.reset([starts[2]]), action, noise[:1])
    torch.testing.assert_close(s.obs[:1], alone.obs)
    torch.testing.assert_close(s.origin[:1], alone.origin)
    assert not torch.equal(s.anchor[0], s.anchor[1])
