"""What is read off the context: here the optical flow, what it moves, and what it learns from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from scd_world.model.config import ModelConfig
from scd_world.model.heads import AnchorAttention, OpticalFlowHead
from scd_world.model.layers import Patches
from scd_world.model.losses import optical_flow_loss
from tests.conftest import CONFIG, filled, make_clip, make_model

PATCHES = Patches(cameras=2, height=8, width=12, patch=4)


def told(right: float, below: float) -> torch.Tensor:
    """A flow (2 frames, 2 cameras, 4, 6, 2): the first camera's, in pixels; the second's stands still."""
    flow = torch.zeros(2, 2, 4, 6, 2)
    flow[:, 0] = torch.tensor([right / 12, below / 8])
    return flow


def test_a_flow_moves_each_camera_by_its_own_pixels():
    head, image = OpticalFlowHead(32, PATCHES), torch.rand(2, 6, 8, 12)
    out = head.move(image, told(3, -2))
    torch.testing.assert_close(out[:, :3, 2:, :-3], image[:, :3, :-2, 3:])
    torch.testing.assert_close(out[:, 3:], image[:, 3:])


def test_before_training_nothing_moves_and_each_patch_has_four_flows_of_its_own():
    head, tokens = OpticalFlowHead(32, PATCHES), torch.randn(2, 13, 32)
    assert not head(tokens).any()
    torch.nn.init.normal_(head.mlp[-1].weight, std=0.1)
    flow = head(tokens)
    assert flow.shape == (2, 2, 4, 6, 2)
    other = head(
        torch.cat([tokens[:, :7], torch.randn(2, 1, 32), tokens[:, 8:]], dim=1)
    )  # the 2nd camera's 2nd
    changed = (other != flow).any(-1)
    assert changed[:, 1, :2, 2:4].all()
    assert changed.sum() == 2 * 4


def test_what_was_measured_badly_and_what_was_not_recorded_teach_nothing(schema):
    clip = make_clip(schema, B=2, T=3)
    measured = torch.randn(2, 3, 2, 4, 6, 3, generator=torch.Generator().manual_seed(0)) * 0.1
    measured[..., 2] = 1.0
    wrong = measured[..., :2] + 0.05
    clip = replace(clip, optical_flow=measured)
    assert optical_flow_loss(clip, measured[..., :2], 2, 3) == 0
    assert optical_flow_loss(clip, wrong, 2, 3) > 0
    unsure = replace(clip, optical_flow=measured * torch.tensor([1.0, 1.0, 0.0]))
    assert optical_flow_loss(unsure, wrong, 2, 3) == 0
    assert optical_flow_loss(replace(clip, valid=torch.zeros(2, 3)), wrong, 2, 3) == 0


def test_a_model_with_a_flow_learns_it_where_it_was_measured(schema, stats):
    model = filled(make_model(replace(CONFIG, optical_flow=True), schema, stats))
    clip = make_clip(schema, B=2, T=3)
    noise = model.sample_noise(clip, torch.Generator().manual_seed(0))
    assert "optical_flow" not in model.loss(clip, noise)[1]
    y, x = (2 * n for n in model.core.patches.grid)
    measured = torch.rand(2, 3, 2, y, x, 3)
    total, parts = model.loss(replace(clip, optical_flow=measured), noise)
    assert parts["optical_flow"] > 0
    (grad,) = torch.autograd.grad(parts["optical_flow"], model.core.encoder.patch_embed.weight)
    assert grad.any()
    for weight in (0.0, 1.0):
        model.config = replace(model.config, optical_flow_weight=weight)
        total, parts = model.loss(replace(clip, optical_flow=measured), noise)
        rest = model.loss(clip, noise)[0]
        torch.testing.assert_close(total - rest, weight * parts["optical_flow"])


def test_a_flow_is_no_matter_of_heads_that_mix_nothing():
    for changes in ({"head": "patch"}, {"architecture": "copy_last"}):
        with pytest.raises(ValueError, match="optical_flow is of head=conv"):
            ModelConfig(optical_flow=True, **changes)


def test_attention_finds_in_the_anchor_what_both_states_say():
    """Each anchor is new; where in it to look follows from how far the view has moved since."""
    torch.manual_seed(0)
    patches = Patches(cameras=1, height=2, width=12, patch=2)
    attention = AnchorAttention(patches, state=1, action=1, width=32, heads=2, octaves=3)
    optimizer = torch.optim.AdamW(attention.parameters(), lr=5e-3)
    losses = []
    for _ in range(300):
        anchor, now, moved = torch.rand(16, 3, 1, 6) * 2 - 1, torch.rand(16, 1), torch.randint(-2, 3, (16, 1))
        state_action = torch.cat([now, torch.zeros(16, 1)], dim=1)
        image = anchor.repeat_interleave(2, 2).repeat_interleave(2, 3)
        found = attention(image, state_action, now - 0.4 * moved)[:, :, ::2, ::2]
        there = torch.arange(6) + moved
        inside = ((there >= 0) & (there < 6))[:, None, None].expand(-1, 3, 1, -1)
        wanted = anchor.gather(3, there.clamp(0, 5)[:, None, None].expand(-1, 3, 1, -1))
        loss = (found - wanted)[inside].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.25 * losses[0], losses[::50]
