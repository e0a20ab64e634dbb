"""A long memory for little: the last frames at full resolution, and all frames of the window in a few tokens.

Two rings in one block of memory, so that attention reads both without a copy: `near + 1` slots of M tokens,
and `window + 1` slots of G coarse tokens. A frame is written to both; when it is no longer near, its coarse
tokens are what is seen of it.

L layers, B rows, h heads, M tokens per frame, G coarse ones, d head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scd_world.model.kv_cache import RingKVCache, put_into_slot


class TwoScaleKVCache(RingKVCache):
    def __init__(
        self,
        layers: int,
        rows: int,
        heads: int,
        near: int,
        window: int,
        tokens: int,
        coarse: int,
        head_width: int,
        device: torch.device,
    ) -> None:
        self.near_slots, self.far_slots = near + 1, window + 1  # one each for the newest frame
        self.tokens, self.coarse = tokens, coarse
        self.border = self.near_slots * tokens
        super().__init__(layers, rows, heads, 1, self.border + self.far_slots * coarse, head_width, device)
        self.keys, self.values = self.keys[:, :, :, 0], self.values[:, :, :, 0]  # (L, B, h, all tokens, d)
        self.position.fill_(self.far_slots)
        self.first.fill_(self.far_slots)

    @property
    def window(self) -> int:
        return self.far_slots

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The current frame's (B, h, M or M + G, d) into their slots; all of (B, h, …, d) comes back."""
        for memory, new in ((self.keys[layer], keys), (self.values[layer], values)):
            near, far = memory.tensor_split([self.border], dim=2)
            full, few = new.tensor_split([self.tokens], dim=2)
            slots = near.unflatten(2, (self.near_slots, self.tokens))
            put_into_slot(slots, self.position % self.near_slots, full)
            if few.shape[2]:
                slots = far.unflatten(2, (self.far_slots, self.coarse))
                put_into_slot(slots, self.position % self.far_slots, few)
        return self.keys[layer].to(keys.dtype), self.values[layer].to(values.dtype)

    def visible(self) -> Tensor:
        """(B, 1, M + G, all tokens) bool: full tokens see near frames whole and older ones coarsely; coarse
        tokens see coarse ones."""
        near, far = self.ages(self.near_slots), self.ages(self.far_slots)
        whole = self.known(near).repeat_interleave(self.tokens, dim=1)
        coarse = self.known(far).repeat_interleave(self.coarse, dim=1)
        older = (far >= self.near_slots).repeat_interleave(self.coarse)
        of_full = torch.cat([whole, coarse & older], dim=1)[:, None, None]
        of_coarse = torch.cat([torch.zeros_like(whole), coarse], dim=1)[:, None, None]
        return torch.cat(
            [of_full.expand(-1, -1, self.tokens, -1), of_coarse.expand(-1, -1, self.coarse, -1)], dim=2
        )

    def ages(self, slots: int) -> Tensor:
        """How many frames ago each slot's frame was, (slots,); the current frame's is 0."""
        return (self.position - torch.arange(slots, device=self.first.device)) % slots

    def known(self, ages: Tensor) -> Tensor:
        """(B, slots) bool: those that belong to the row's episode."""
        return self.position - ages >= self.first[:, None]

    def fresh(self, rows: int, before: int) -> TwoScaleKVCache:
        L, _, h, _, d = self.keys.shape
        near, window = self.near_slots - 1, self.far_slots - 1
        cache = TwoScaleKVCache(L, rows, h, near, window, self.tokens, self.coarse, d, self.keys.device)
        cache.position.copy_(self.position - before)
        cache.first.fill_(cache.position)
        return cache
