"""The network of dense causal diffusion: every layer reads the whole past, at every denoising step.

Frame i of the history carries its state and the action taken there, as SCD's encoder has them; the frame that
is drawn carries the state it is drawn for and the action that leads to it, as SCD's decoder has them. Each
frame sees itself and the `window` frames before it.

As fast as we know how: a frame's keys and values are computed once and stay in a ring that is never copied;
the frame being drawn uses the ring's next slot, which its clean version will take over.

B batch, T frames, K noise draws, M = N + 1 tokens per frame (N patches, then the body), D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from scd_world.model.decoder import behind
from scd_world.model.kv_cache import RingCache
from scd_world.model.layers import (
    Block,
    FourierEmbedder,
    Patches,
    Rotary,
    TimestepEmbedder,
    band_mask,
    place_embedding,
    token_positions,
)

Memory = list[tuple[Tensor, Tensor]]  # per layer the keys and values (B, h, T·M, d) of a clip's history


class Now(NamedTuple):
    """What every denoising step of one frame shares: where it stands and what it sees."""

    rotary: tuple[Tensor, Tensor]
    mask: Tensor
    cache: RingCache


class Dense(nn.Module):
    def __init__(
        self,
        patches: Patches,
        vector: int,
        rates: int,
        tasks: int,
        width: int,
        heads: int,
        layers: int,
        window: int,
        octaves: int,
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.lends_keys = True  # what is drawn sees those of the history
        self.patches, self.window, self.vector, self.heads = patches, window, vector, heads
        self.pixels_in = nn.Linear(patches.values, width)
        self.place = place_embedding(patches.count + 1, width)
        self.kind = place_embedding(2, width)  # known, drawn
        self.known_body = FourierEmbedder(vector, width, octaves, rates)
        self.known_condition = FourierEmbedder(vector, width, octaves, rates)
        self.drawn_body = FourierEmbedder(vector, width, octaves, tasks)
        self.drawn_condition = FourierEmbedder(vector, width, octaves, tasks)
        self.time = TimestepEmbedder(width)
        self.rotary = Rotary(width // heads, *token_positions(patches))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.final = head  # of `render_heads.py`

    # ---- a clip at once, to learn ----------------------------------------------------------------------

    def read(self, obs: Tensor, t: Tensor, vector: Tensor, rates: Tensor) -> tuple[Tensor, Memory]:
        """The history, (B, T, C, H, W), at noise levels t (B, T): h (B, T, M, D), and what drawing sees."""
        h, c = self.embed_known(obs, t, vector, rates)
        mask = band_mask(h.shape[1], h.shape[2], self.window + 1, h.device)
        return self.through_all(h, c, self.rotary(torch.arange(h.shape[1], device=h.device)), mask)

    def through_all(
        self, h: Tensor, c: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor
    ) -> tuple[Tensor, Memory]:
        memory: Memory = []

        def remember(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            memory.append((k, v))
            return k, v, mask

        for block in self.blocks:
            h = block(h, c, rotary, remember)
        return h, memory

    def draw_all(self, x_t: Tensor, t: Tensor, vector: Tensor, seen: Tensor, memory: Memory) -> Tensor:
        """x_t (K, B, T, C, H, W), t (K, B, T), vector (B, T, S + A + tasks), seen (B, T, I·C, H, W)
        → (K·B·T, C, H, W).

        One frame after the other: each has its own past, and so nothing is computed only to be masked.
        """
        K, T = x_t.shape[0], x_t.shape[2]

        def draws(x: Tensor) -> Tensor:
            return x.expand(K, *x.shape).flatten(0, 1)

        drawn = []
        for i in range(T):
            past = [tuple(draws(x) for x in self.past(layer, i, T)) for layer in memory]
            rotary = self.rotary(torch.tensor([i + 1], device=x_t.device))
            h, c = self.embed_drawn(x_t[:, :, i].flatten(0, 1), t[:, :, i].flatten(), draws(vector[:, i]))
            for block, (keys, values) in zip(self.blocks, past, strict=True):
                h = block(h, c, rotary, behind(keys, values))
            drawn.append(self.final(h[:, :, : self.patches.count], c, draws(seen[:, i])))
        return torch.stack(drawn, dim=1).flatten(0, 1)

    def past(self, layer: tuple[Tensor, Tensor], i: int, T: int) -> tuple[Tensor, ...]:
        """What the frame after frame i sees of one layer's history."""
        M = layer[0].shape[2] // T
        seen = slice(max(i + 1 - self.window, 0) * M, (i + 1) * M)
        return layer[0][:, :, seen], layer[1][:, :, seen]

    # ---- frame by frame, to step -----------------------------------------------------------------------

    def write(self, obs: Tensor, t: Tensor, vector: Tensor, rates: Tensor, cache: RingCache) -> Tensor:
        """One known frame, (B, C, H, W), t (B,): h (B, M, D). Writes to the cache, advances it."""
        h, c = self.embed_known(obs[:, None], t[:, None], vector[:, None], rates[:, None])
        h = self.through(h, c, self.now(cache))
        cache.advance()
        return h[:, 0]

    def draw(self, x_t: Tensor, t: Tensor, vector: Tensor, seen: Tensor, now: Now) -> Tensor:
        """What `predict` says of the next frame, (B, C, H, W). t (B,), vector (B, S + A + tasks)."""
        h, c = self.embed_drawn(x_t, t, vector)
        return self.final(self.through(h, c, now)[:, :, : self.patches.count], c, seen)

    def now(self, cache: RingCache) -> Now:
        return Now(self.rotary(cache.position[None]), cache.visible(), cache)

    def through(self, h: Tensor, c: Tensor, now: Now) -> Tensor:
        for layer, block in enumerate(self.blocks):
            h = block(h, c, now.rotary, lambda k, v, layer=layer: (*now.cache.write(layer, k, v), now.mask))
        return h

    # ---- tokens ----------------------------------------------------------------------------------------

    def embed_known(self, obs: Tensor, t: Tensor, vector: Tensor, rates: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, M, D), and the condition of their modulations (B, T, 1, D)."""
        body = self.known_body(vector, rates)[:, :, None]
        tokens = torch.cat([self.pixels_in(self.patches(obs)), body], dim=2)
        time = self.time(t.flatten()).unflatten(0, t.shape)
        c = time + self.known_condition(vector, rates)
        return tokens + self.place + self.kind[0], c[:, :, None]

    def embed_drawn(self, x_t: Tensor, t: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        """(F, 1, M, D), (F, 1, 1, D) of frames x_t (F, C, H, W), t (F,), vector (F, S + A + tasks)."""
        vector, task = vector.tensor_split([self.vector], dim=-1)
        body = self.drawn_body(vector, task)[:, None, None]
        tokens = torch.cat([self.pixels_in(self.patches(x_t[:, None])), body], dim=2)
        c = self.time(t) + self.drawn_condition(vector, task)
        return tokens + self.place + self.kind[1], c[:, None, None]
