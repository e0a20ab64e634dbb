"""The dense network with a long memory: every frame also as a few coarse tokens, which is how it is
remembered once it is `near` frames old.

B batch, T frames, M tokens per frame, G coarse ones (patches four times as wide and high, then the
state_token).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scd_world.baselines.dense import ClipKV, DenseTransformer, FrameSlot
from scd_world.model.kv_cache import RingKVCache
from scd_world.model.layers import Patches, Rotary, position_embedding, token_positions

TIMES = 4  # as wide and as high


class LongContextTransformer(DenseTransformer):
    def __init__(self, patches: Patches, coarse: Patches, near: int, width: int, heads: int, **settings: Any):
        super().__init__(patches, width=width, heads=heads, **settings)
        self.coarse, self.near = coarse, near
        self.coarse_in = nn.Linear(coarse.values, width)
        self.coarse_place = position_embedding(coarse.count + 1, width)
        full, few = token_positions(patches), token_positions(coarse)
        # A coarse token stands in the middle of the patches that it covers.
        middle = [TIMES * positions + (TIMES - 1) / 2 for positions in few]
        self.rotary_known = Rotary(width // heads, *map(torch.cat, zip(full, middle, strict=True)))

    @property
    def tokens(self) -> int:
        return self.patches.count + 1

    def read(
        self, obs: Tensor, t: Tensor, state_action: Tensor, delta_features: Tensor
    ) -> tuple[Tensor, ClipKV]:
        h, c = self.embed_known(obs, t, state_action, delta_features)
        mask = self.mask(h.shape[1], h.device)
        h, memory = self.run_clip(h, c, self.rotary_known(torch.arange(h.shape[1], device=h.device)), mask)
        return h[:, :, : self.tokens], memory

    def mask(self, T: int, device: torch.device) -> Tensor:
        """(T·(M + G), T·(M + G)) bool, by the rule of `TwoRings.visible`."""
        M, G = self.tokens, self.coarse.count + 1
        frame = torch.arange(T, device=device).repeat_interleave(M + G)
        age = frame[:, None] - frame[None, :]
        full = (torch.arange(M + G, device=device) < M).repeat(T)
        near = full[None, :] & (age >= 0) & (age <= self.near)
        far = ~full[None, :] & (age <= self.window)
        return torch.where(full[:, None], near | (far & (age > self.near)), far & (age >= 0))

    def past(self, layer: tuple[Tensor, Tensor], i: int, T: int) -> tuple[Tensor, ...]:
        M, near = self.tokens, max(i + 1 - self.near, 0)
        frames = [x.unflatten(2, (T, -1)) for x in layer]
        return tuple(
            torch.cat(
                [
                    x[:, :, max(i + 1 - self.window, 0) : near, M:].flatten(2, 3),
                    x[:, :, near : i + 1, :M].flatten(2, 3),
                ],
                dim=2,
            )
            for x in frames
        )

    def write(
        self, obs: Tensor, t: Tensor, state_action: Tensor, delta_features: Tensor, cache: RingKVCache
    ) -> Tensor:
        h, c = self.embed_known(obs[:, None], t[:, None], state_action[:, None], delta_features[:, None])
        h = self.run_blocks(h, c, FrameSlot(self.rotary_known(cache.position[None]), cache.visible(), cache))
        cache.advance()
        return h[:, 0, : self.tokens]

    def now(self, cache: RingKVCache) -> FrameSlot:
        return FrameSlot(self.rotary(cache.position[None]), cache.visible()[:, :, :1], cache)

    def embed_known(
        self, obs: Tensor, t: Tensor, state_action: Tensor, delta_features: Tensor
    ) -> tuple[Tensor, Tensor]:
        tokens, c = super().embed_known(obs, t, state_action, delta_features)
        state_token = self.known_state_embed(state_action, delta_features)[:, :, None]
        few = torch.cat([self.coarse_in(self.coarse(obs)), state_token], dim=2) + self.coarse_place
        return torch.cat([tokens, few], dim=2), c
