"""FAR with a long memory: `near_window` frames in full, older ones in a sixteenth of the tokens."""

from __future__ import annotations

from typing import Any

import torch

from scd_world.baselines.far import FAR
from scd_world.baselines.long_dense import TIMES, LongContextTransformer
from scd_world.baselines.two_scale_cache import TwoScaleKVCache
from scd_world.model.layers import Patches


class FARLong(FAR):
    net: LongContextTransformer

    def make_net(self, **settings: Any) -> LongContextTransformer:
        c, s = self.config, self.schema
        if any(size % TIMES for size in self.patches.grid):
            rows, columns = self.patches.grid
            raise ValueError(
                f"architecture=far_long joins {TIMES} × {TIMES} patches, and {rows} × {columns} do not "
                f"divide so: model.patch={c.patch} must leave the frame {s.height}×{s.width} with numbers of "
                f"patches that {TIMES} divides, in both directions"
            )
        coarse = Patches(len(s.cameras), s.height, s.width, TIMES * c.patch)
        return LongContextTransformer(self.patches, coarse, min(c.near_window, c.window), **settings)

    def empty_cache(self, rows: int, device: torch.device) -> TwoScaleKVCache:
        c, net = self.config, self.net
        shape = c.window, self.num_tokens, net.coarse.count + 1, c.width // c.heads
        return TwoScaleKVCache(len(net.blocks), rows, c.heads, net.near, *shape, device)
