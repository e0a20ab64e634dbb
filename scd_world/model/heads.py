"""What is known before a pixel is denoised: next state, reward, success, and what the anchor tells."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from scd_world.model.layers import (
    Block,
    FourierEmbedder,
    Patches,
    Rotary,
    attend_with_prefix,
    position_embedding,
    zero_init,
)


class LowDimHeads(nn.Module):
    class Output(NamedTuple):
        state_residual: Tensor  # (…, S) what the state prior leaves, in units of its residual scale
        reward: Tensor  # (…,) model units
        success: Tensor  # (…,) logit

    def __init__(self, width: int, state_size: int) -> None:
        super().__init__()
        self.state_size = state_size
        # The last layer starts at zero: before training, the prior alone decides.
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.SiLU(), zero_init(nn.Linear(2 * width, state_size + 2))
        )

    @property
    def adds_nothing(self) -> bool:
        """Says whether it gives zeros whatever it reads: losses of weight 0 leave its last layer there."""
        return not any(parameter.any() for parameter in self.mlp[-1].parameters())

    def forward(self, token: Tensor) -> Output:
        """Reads the context's state token (…, D)."""
        out = self.mlp(token).float()
        return self.Output(out[..., : self.state_size], out[..., -2], out[..., -1])


class AnchorAttention(nn.Module):
    """Draws the next frame as far as the anchor, the last frame that was shown, tells it: an object that
    left the view and comes back is the same object.

    The encoder's window is some frames long. The anchor stays for the whole episode, and with it the state
    there: where a camera rides on an arm, both states together say where in the anchor to look. One
    transformer layer, once per frame, of the places of the frame, which see one another and the anchor's
    patches. They are told nothing of the last frame, or they would draw that, which is nearer, and never
    learn to look.
    """

    def __init__(
        self, patches: Patches, state: int, action: int, width: int, heads: int, octaves: int
    ) -> None:
        super().__init__()
        self.patches, self.state_size = patches, state
        self.patch_embed = nn.Linear(patches.values, width)
        self.position = position_embedding(patches.count, width)
        self.modulation_embed = FourierEmbedder(2 * state + action, width, octaves)
        self.block = Block(width, heads)
        self.rotary = Rotary(width // heads, *patches.positions())
        self.draw = nn.Linear(width, patches.values)

    def forward(self, anchor: Tensor, state_action: Tensor, anchor_state: Tensor) -> Tensor:
        """anchor (F, C, H, W), state_action (F, S + A) of the next frame, anchor_state (F, S) → what was
        found of that frame, (F, C, H, W)."""
        since = state_action[:, : self.state_size] - anchor_state
        condition = self.modulation_embed(torch.cat([since, state_action], dim=-1))[:, None, None]
        now = self.rotary(torch.zeros(1, dtype=torch.long, device=anchor.device))  # however long ago it was
        shown = self.patch_embed(self.patches(anchor[:, None])) + self.position
        see = attend_with_prefix(*self.block.attention.keys_values(self.block.norm1(shown), now))
        found = self.block(self.position.expand(len(anchor), 1, -1, -1), condition, now, see)
        return self.patches.inverse(self.draw(found))[:, 0]
