"""The frame-wise decoder D: renders one frame from its context, and never sees another frame.

v = D([c_i ; x_i^t], t) (paper eq. 5): context and noisy tokens are concatenated along the sequence. Both
halves share the rotary positions and are told apart by a type embedding; adding the context to the noisy
tokens as well spares the network from learning first which context token belongs to which patch.

Most of a robot's picture stands still: the last layer (`render_heads.py`) may keep pixels of the last frame.

F frames (batch, time and noise draws folded together), N patches, M = N + 1 context tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scd_world.encoder import token_positions
from scd_world.layers import (
    Block,
    FourierEmbedder,
    Patches,
    Rotary,
    TimestepEmbedder,
    place_embedding,
    zero,
)

# An average velocity is learnt from its derivative in t, and a ripple of 1e-3 that turns a thousand times
# faster than t has a derivative of 1. In trained worlds the faster features draw nothing else.
SMOOTH = 30.0


class Decoder(nn.Module):
    def __init__(
        self,
        patches: Patches,
        vector: int,
        width: int,
        heads: int,
        layers: int,
        octaves: int,
        tasks: int,
        add_context: bool,
        interval: bool,
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.patches, self.add_context, self.vector = patches, add_context, vector
        self.pixels_in = nn.Linear(patches.values, width)
        self.place = place_embedding(patches.count, width)
        self.kind = place_embedding(2, width)  # context, noisy
        self.body_in = FourierEmbedder(vector, width, octaves, tasks)
        self.condition = FourierEmbedder(vector, width, octaves, tasks)
        self.time = TimestepEmbedder(width, fastest=SMOOTH if interval else 1000.0)
        self.until = TimestepEmbedder(width, fastest=SMOOTH) if interval else None
        if self.until is not None:
            zero(self.until.mlp[-1])  # a decoder that was taught without it goes on from where it was
        rows, columns = token_positions(patches)
        self.rotary = Rotary(width // heads, torch.cat([rows, rows[:-1]]), torch.cat([columns, columns[:-1]]))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.final = head  # of `render_heads.py`

    def forward(
        self, x_t: Tensor, t: Tensor, ctx: Tensor, vector: Tensor, seen: Tensor, s: Tensor | None = None
    ) -> Tensor:
        """What `predict` says, (F, C, H, W).

        x_t (F, C, H, W), t (F,), ctx (F, M, D), vector (F, S + A + tasks): next state, action, task; seen
        (F, I·C, H, W): the frame that the context was made from, and the sketch; s (F,), read with
        `interval`: where the step from t on ends, None for a step of no length.
        """
        vector, task = vector.tensor_split([self.vector], dim=-1)
        N = self.patches.count
        noisy = self.pixels_in(self.patches(x_t[:, None])) + self.place
        if self.add_context:
            noisy = noisy + ctx[:, None, :N]
        body = ctx[:, None, N:] + self.body_in(vector, task)[:, None, None]
        known = torch.cat([ctx[:, None, :N], body], dim=2)
        h = torch.cat([known + self.kind[0], noisy + self.kind[1]], dim=2)

        time = self.time(t)
        if self.until is not None:
            time = time + self.until(t if s is None else s)
        c = (time + self.condition(vector, task))[:, None, None]
        rotary = self.rotary(torch.zeros(1, dtype=torch.long, device=h.device))
        for block in self.blocks:
            h = block(h, c, rotary, lambda k, v: (k, v, None))
        return self.final(h[:, :, N + 1 :], c, seen)
