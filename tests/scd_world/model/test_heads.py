"""What is known before a pixel is denoised: here what the anchor tells."""

from __future__ import annotations

import torch

from scd_world.model.heads import AnchorAttention
from scd_world.model.layers import Patches


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
