"""The causal encoder E: reads each observed frame and the action taken there once, and says what comes next.

c_i = E(x_≤i, a_≤i) (paper eq. 4, in our alignment): bidirectional inside a frame, causal across frames, each
frame seeing the last `window` frames. One token per patch, and one *body* token for state and action.

B batch, T frames, M = N + 1 tokens per frame (N patches, then the body), D width, S state, A action,
R rates: velocity, the body's expected change, and which task it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scd_world.model.kv_cache import RingCache
from scd_world.model.layers import (
    Block,
    FourierEmbedder,
    Patches,
    Rotary,
    band_mask,
    blank,
    place_embedding,
    token_positions,
)


class Encoder(nn.Module):
    def __init__(
        self,
        patches: Patches,
        vector: int,
        rates: int,
        width: int,
        heads: int,
        layers: int,
        window: int,
        octaves: int,
        hidden: int = 0,
    ) -> None:
        """hidden: size of the action, the last of `vector`, where the encoder is not told it."""
        super().__init__()
        self.window, self.heads, self.patches, self.hidden = window, heads, patches, hidden
        self.pixels_in = nn.Linear(patches.values, width)
        self.place = place_embedding(patches.count + 1, width)  # also tells cameras apart
        self.body_in = FourierEmbedder(vector, width, octaves, rates)
        self.condition = FourierEmbedder(vector, width, octaves, rates)
        self.rotary = Rotary(width // heads, *token_positions(patches))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))

    def forward(self, obs: Tensor, vector: Tensor, rates: Tensor) -> Tensor:
        """All frames of a clip at once: (B, T, C, H, W), (B, T, S + A), (B, T, R) → (B, T, M, D)."""
        h, c = self.embed(obs, vector, rates)
        mask = band_mask(h.shape[1], h.shape[2], self.window, h.device)
        rotary = self.rotary(torch.arange(h.shape[1], device=h.device))
        for block in self.blocks:
            h = block(h, c, rotary, lambda k, v: (k, v, mask))
        return h

    def step(self, obs: Tensor, vector: Tensor, rates: Tensor, cache: RingCache) -> Tensor:
        """One more frame: (B, C, H, W), (B, S + A), (B, R) → (B, M, D). Writes to the cache, advances it."""
        h, c = self.embed(obs[:, None], vector[:, None], rates[:, None])
        rotary = self.rotary(cache.position[None])
        mask = cache.visible()
        for layer, block in enumerate(self.blocks):
            h = block(h, c, rotary, lambda k, v, layer=layer: (*cache.write(layer, k, v), mask))
        cache.advance()
        return h[:, 0]

    def embed(self, obs: Tensor, vector: Tensor, rates: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, M, D) and the condition of the frame's modulations (B, T, 1, D)."""
        if self.hidden:  # nor what the body expects of it
            S = vector.shape[-1] - self.hidden
            vector, rates = blank(vector, S), blank(rates, S, 2 * S)
        body = self.body_in(vector, rates)[:, :, None]
        tokens = torch.cat([self.pixels_in(self.patches(obs)), body], dim=2)
        return tokens + self.place, self.condition(vector, rates)[:, :, None]
