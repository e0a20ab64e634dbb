"""The causal encoder E: reads each observed frame and the action taken there once, and says what comes next.

c_i = E(x_≤i, a_≤i) (paper eq. 4, in our alignment): bidirectional inside a frame, causal across frames, each
frame seeing the last `window` frames. One token per patch, and one *state token* for state and action.

B batch, T frames, M = N + 1 tokens per frame (N patches, then the state token), D width, S state, A action,
R features beside them: velocity and expected change, where a state prior gives them, and which task it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scd_world.model.kv_cache import RingKVCache
from scd_world.model.layers import (
    Block,
    FourierEmbedder,
    FrameBand,
    Patches,
    Rotary,
    band_mask,
    position_embedding,
    token_positions,
    zero_slice,
)


class Encoder(nn.Module):
    def __init__(
        self,
        patches: Patches,
        state_action: int,
        delta_features: int,
        width: int,
        heads: int,
        layers: int,
        window: int,
        octaves: int,
        tasks: int,
        masked_action_dims: int = 0,
    ) -> None:
        """state_action: S + A; delta_features: those of a state prior, 2·S or none; masked_action_dims: A
        where the encoder is not given the action, nor what is expected of it."""
        super().__init__()
        self.window, self.heads, self.patches = window, heads, patches
        self.delta_features, self.masked_action_dims = delta_features, masked_action_dims
        self.patch_embed = nn.Linear(patches.values, width)
        self.position = position_embedding(patches.count + 1, width)  # also tells cameras apart
        self.state_embed = FourierEmbedder(state_action, width, octaves, delta_features + tasks)
        self.modulation_embed = FourierEmbedder(state_action, width, octaves, delta_features + tasks)
        self.rotary = Rotary(width // heads, *token_positions(patches))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))

    def forward(self, obs: Tensor, state_action: Tensor, delta_features: Tensor) -> Tensor:
        """Encodes all frames of a clip: (B, T, C, H, W), (B, T, S + A), (B, T, R) → (B, T, M, D)."""
        h, c = self.embed(obs, state_action, delta_features)
        T, M = h.shape[1:3]
        band = FrameBand(T, self.window, band_mask(T, M, self.window, h.device))
        rotary = self.rotary(torch.arange(T, device=h.device))
        for block in self.blocks:
            h = block(h, c, rotary, lambda k, v: (k, v, band))
        return h

    def step(self, obs: Tensor, state_action: Tensor, delta_features: Tensor, cache: RingKVCache) -> Tensor:
        """Encodes one more frame: (B, C, H, W), (B, S + A), (B, R) → (B, M, D). Writes to the cache, advances
        it."""
        h, c = self.embed(obs[:, None], state_action[:, None], delta_features[:, None])
        rotary = self.rotary(cache.position[None])
        mask = cache.visible()
        for layer, block in enumerate(self.blocks):
            h = block(h, c, rotary, lambda k, v, layer=layer: (*cache.write(layer, k, v), mask))
        cache.advance()
        return h[:, 0]

    def embed(self, obs: Tensor, state_action: Tensor, delta_features: Tensor) -> tuple[Tensor, Tensor]:
        """Gives tokens (B, T, M, D) and the condition of the frame's modulations (B, T, 1, D)."""
        if self.masked_action_dims:  # nor what a prior expects of it
            S, R = state_action.shape[-1] - self.masked_action_dims, self.delta_features
            state_action = zero_slice(state_action, S)
            delta_features = zero_slice(delta_features, min(S, R), R)
        state_token = self.state_embed(state_action, delta_features)[:, :, None]
        tokens = torch.cat([self.patch_embed(self.patches(obs)), state_token], dim=2)
        return tokens + self.position, self.modulation_embed(state_action, delta_features)[:, :, None]
