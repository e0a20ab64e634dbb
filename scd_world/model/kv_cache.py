"""The encoder's memory while stepping: a ring of the last `window` frames' rotated keys and values.

All rows share one write position; each row knows its own first frame, so that ending one row's episode and
starting another is one assignment. Nothing is ever reallocated, and position and validity are tensors: the
host never waits.

L layers, B rows, h heads, W window, M tokens per frame, d head width.
"""

from __future__ import annotations

from copy import copy as shallow_copy

import torch
from torch import Tensor


class RingKVCache:
    def __init__(
        self,
        layers: int,
        rows: int,
        heads: int,
        window: int,
        tokens: int,
        head_width: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (layers, rows, heads, window, tokens, head_width)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        # Frames are counted from `window`, so that the frames before a start have positive numbers too.
        self.position = torch.tensor(window, device=device)  # () the frame that is written next
        self.first = torch.full((rows,), window, device=device)  # (B,) the first frame of each row's episode
        self.steps = 0  # steps taken: lets an outdated `RolloutState` notice that it is outdated

    @property
    def window(self) -> int:
        return self.keys.shape[3]

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Puts the current frame's (B, h, M, d) into its slot; all slots, (B, h, W·M, d), come back."""
        slot = self.position % self.window
        put_into_slot(self.keys[layer], slot, keys)
        put_into_slot(self.values[layer], slot, values)
        return self.keys[layer].flatten(2, 3).to(keys.dtype), self.values[layer].flatten(2, 3).to(
            values.dtype
        )

    def visible(self) -> Tensor:
        """Which slots the current frame sees: its own episode's last `window` frames. (B, 1, 1, W·M) bool."""
        slots = torch.arange(self.window, device=self.first.device)
        frame_in_slot = self.position - (self.position - slots) % self.window
        seen = frame_in_slot >= self.first[:, None]
        return seen.repeat_interleave(self.keys.shape[4], dim=1)[:, None, None]

    def advance(self) -> None:
        self.position += 1
        self.steps += 1

    def fresh(self, rows: int, before: int) -> RingKVCache:
        """An empty cache for `rows` new episodes, whose frame number `before` will be this cache's next."""
        L, _, h, W, M, d = self.keys.shape
        cache = RingKVCache(L, rows, h, W, M, d, self.keys.device, self.keys.dtype)
        cache.position.copy_(self.position - before)
        cache.first.fill_(cache.position)
        return cache

    def clear(self, rows: Tensor) -> None:
        """Rows (r,) become those of an empty cache at the same position: a value that is no number counts
        even where nobody looks at it."""
        self.keys[:, rows] = 0
        self.values[:, rows] = 0
        self.first[rows] = self.position

    def replace(self, rows: Tensor, other: RingKVCache) -> None:
        """Rows (r,) become those of `other`, which must stand at the same position."""
        self.keys[:, rows] = other.keys
        self.values[:, rows] = other.values
        self.first[rows] = other.first

    def copy_(self, other: RingKVCache) -> None:
        """Becomes what `other` is, in the memory that it has."""
        for name in ("keys", "values", "position", "first"):
            getattr(self, name).copy_(getattr(other, name))
        self.steps = other.steps

    def clone(self) -> RingKVCache:
        copy = shallow_copy(self)
        copy.keys, copy.values = self.keys.clone(), self.values.clone()
        copy.position, copy.first = self.position.clone(), self.first.clone()
        return copy

    def select(self, rows: Tensor) -> RingKVCache:
        """A copy that holds only these rows (r,)."""
        copy = shallow_copy(self)
        copy.keys, copy.values = self.keys[:, rows], self.values[:, rows]
        copy.position, copy.first = self.position.clone(), self.first[rows]
        return copy


def put_into_slot(slots: Tensor, slot: Tensor, new: Tensor) -> None:
    """Writes one frame's (B, h, M, d) into slot number `slot`, (), of (B, h, W, M, d), in place."""
    new = new[:, :, None].to(slots.dtype)
    if torch.compiler.is_compiling():  # of an index_copy_, torch 2.11 makes C++ that does not compile
        chosen = torch.arange(slots.shape[2], device=slots.device) == slot
        slots.copy_(torch.where(chosen[:, None, None], new, slots))
    else:
        slots.index_copy_(2, slot[None], new)
