"""The frame-wise decoder D: renders one frame from its context, and never sees another frame.

v = D([c_i ; x_i^t], t) (paper eq. 5): context and noisy tokens are concatenated along the sequence. Both
halves share the rotary positions and are told apart by a type embedding; adding the context to the noisy
tokens as well spares the network from learning first which context token belongs to which patch.

Most of a robot's picture stands still, so the decoder may say of each pixel how much of the last frame to
keep: what is not pushed can then stay exactly where it is.

F frames (batch, time and noise draws folded together), N patches, M = N + 1 context tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scd_world.encoder import token_positions
from scd_world.layers import (
    Block,
    FinalLayer,
    FourierEmbedder,
    Patches,
    Rotary,
    TimestepEmbedder,
    place_embedding,
)

COPY_FIRST = 2.0  # before training, a pixel is mostly what it was


class Decoder(nn.Module):
    def __init__(
        self,
        patches: Patches,
        vector: int,
        width: int,
        heads: int,
        layers: int,
        octaves: int,
        add_context: bool,
        copy_last: bool,
    ) -> None:
        super().__init__()
        self.patches, self.add_context, self.copy_last = patches, add_context, copy_last
        self.pixels_in = nn.Linear(patches.values, width)
        self.place = place_embedding(patches.count, width)
        self.kind = place_embedding(2, width)  # context, noisy
        self.body_in = FourierEmbedder(vector, width, octaves)
        self.condition = FourierEmbedder(vector, width, octaves)
        self.time = TimestepEmbedder(width)
        rows, columns = token_positions(patches)
        self.rotary = Rotary(width // heads, torch.cat([rows, rows[:-1]]), torch.cat([columns, columns[:-1]]))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.final = FinalLayer(width, patches.values + copy_last * patches.patch**2)

    def forward(self, x_t: Tensor, t: Tensor, ctx: Tensor, vector: Tensor, last: Tensor) -> Tensor:
        """What `predict` says, (F, C, H, W).

        x_t (F, C, H, W), t (F,), ctx (F, M, D), vector (F, S + A): next state and action, last (F, C, H, W):
        the frame that the context was made from.
        """
        N = self.patches.count
        noisy = self.pixels_in(self.patches(x_t[:, None])) + self.place
        if self.add_context:
            noisy = noisy + ctx[:, None, :N]
        body = ctx[:, None, N:] + self.body_in(vector)[:, None, None]
        known = torch.cat([ctx[:, None, :N], body], dim=2)
        h = torch.cat([known + self.kind[0], noisy + self.kind[1]], dim=2)

        c = (self.time(t) + self.condition(vector))[:, None, None]
        rotary = self.rotary(torch.zeros(1, dtype=torch.long, device=h.device))
        for block in self.blocks:
            h = block(h, c, rotary, lambda k, v: (k, v, None))
        out = self.final(h[:, :, N + 1 :], c)
        drawn = self.patches.inverse(out[..., : self.patches.values])[:, 0]
        if not self.copy_last:
            return drawn
        keep = torch.sigmoid(COPY_FIRST + self.patches.inverse(out[..., self.patches.values :])[:, 0])
        keep = keep.repeat_interleave(3, dim=1)  # one per pixel, for its three colours
        return keep * last + (1 - keep) * drawn
