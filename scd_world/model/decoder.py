"""The frame-wise decoder D: renders one frame from its context, and never sees another frame.

v = D([c_i ; x_i^t], t) (paper eq. 5). What does not change from one denoising step to the next is computed
once per frame, as a `Scene`; `draw` is what a denoising step costs. How the noisy tokens learn of the
context is `fusion`:

* concat: context and noisy tokens are one sequence, as in the paper. Both halves share the rotary positions
  and are told apart by a type embedding; the context passes through all layers at each denoising step.
* one_way: the context's half sees itself alone, and not the time: so its keys and values are made once per
  frame, and a denoising step moves the noisy tokens only.
* channel: each noisy token is joined with its patch's context token; the sequence is half as long.
* none: `add_context` alone, the cheapest.

`add_context` adds the context to the noisy tokens besides: it spares the network from learning first which
context token belongs to which patch. Most of a robot's picture stands still: the last layer
(`render_heads.py`) may keep pixels of the last frame.

F frames (batch, time and noise draws folded together), N patches, M = N + 1 context tokens, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from scd_world.model.layers import (
    Block,
    FourierEmbedder,
    Memory,
    Patches,
    Rotary,
    TimestepEmbedder,
    blank,
    place_embedding,
    token_positions,
    zero,
)

# An average velocity is learnt from its derivative in t, and a ripple of 1e-3 that turns a thousand times
# faster than t has a derivative of 1. In trained worlds the faster features draw nothing else.
SMOOTH = 30.0


class Scene(NamedTuple):
    """What all denoising steps of a frame share."""

    known: Tensor  # (F, 1, m, D) tokens that stand before the noisy ones in each layer; none with one_way
    beside: Tensor  # (F, 1, N, D) the context of each patch
    condition: Tensor  # (F, D) of state and action
    rotary: tuple[Tensor, Tensor]  # of known and noisy tokens
    memory: tuple[
        tuple[Tensor, Tensor], ...
    ]  # one_way: per layer the keys and values (F, h, M, d) of the context

    def repeat(self, K: int) -> Scene:
        """The same for K draws of each frame, draws first."""

        def draws(x: Tensor) -> Tensor:
            return x.expand(K, *x.shape).flatten(0, 1)

        memory = tuple((draws(k), draws(v)) for k, v in self.memory)
        return Scene(draws(self.known), draws(self.beside), draws(self.condition), self.rotary, memory)


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
        fusion: str,
        add_context: bool,
        interval: bool,
        head: nn.Module,
        hidden: int = 0,
    ) -> None:
        """hidden: size of the action, the last of `vector`, where the decoder is not told it."""
        super().__init__()
        self.hidden = hidden
        self.lends_keys = fusion == "one_way"
        self.patches, self.fusion, self.add_context, self.vector = patches, fusion, add_context, vector
        self.pixels_in = nn.Linear(patches.values, width)
        self.place = place_embedding(patches.count, width)
        self.kind = place_embedding(2, width)  # context, noisy
        self.body_in = FourierEmbedder(vector, width, octaves, tasks)
        self.condition = FourierEmbedder(vector, width, octaves, tasks)
        self.time = TimestepEmbedder(width, fastest=SMOOTH if interval else 1000.0)
        self.until = TimestepEmbedder(width, fastest=SMOOTH) if interval else None
        if self.until is not None:
            zero(self.until.mlp[-1])  # a decoder that was taught without it goes on from where it was
        self.join = nn.Linear(2 * width, width) if fusion == "channel" else None
        rows, columns = token_positions(patches)
        self.rotary_known = Rotary(width // heads, rows, columns)
        self.rotary_noisy = Rotary(width // heads, rows[:-1], columns[:-1])
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.final = head  # of `render_heads.py`

    def forward(
        self, x_t: Tensor, t: Tensor, ctx: Tensor, vector: Tensor, seen: Tensor, s: Tensor | None = None
    ) -> Tensor:
        """What `predict` says, (F, C, H, W), of a single step; arguments as of `scene` and `draw`."""
        return self.draw(x_t, t, self.scene(ctx, vector), seen, s)

    def scene(self, ctx: Tensor, vector: Tensor) -> Scene:
        """ctx (F, M, D), vector (F, S + A + tasks): next state, action, task."""
        vector, task = vector.tensor_split([self.vector], dim=-1)
        if self.hidden:
            vector = blank(vector, self.vector - self.hidden)
        N, condition = self.patches.count, self.condition(vector, task)
        beside = ctx[:, None, :N]
        body = ctx[:, None, N:] + self.body_in(vector, task)[:, None, None]
        context = torch.cat([beside, body], dim=2) + self.kind[0]
        of_known, of_noisy = self.angles(ctx.device)
        if self.fusion == "one_way":
            memory = self.remember(context, condition[:, None, None], of_known)
            return Scene(context[:, :, :0], beside, condition, of_noisy, memory)
        if self.fusion != "concat":  # the patches' context is beside the noisy tokens; the body has none
            context, of_known = context[:, :, N:], tuple(angles[N:] for angles in of_known)
        rotary = tuple(torch.cat(pair) for pair in zip(of_known, of_noisy, strict=True))
        return Scene(context, beside, condition, rotary, ())

    def angles(self, device: torch.device) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        now = torch.zeros(1, dtype=torch.long, device=device)
        return self.rotary_known(now), self.rotary_noisy(now)

    def remember(
        self, h: Tensor, c: Tensor, rotary: tuple[Tensor, Tensor]
    ) -> tuple[tuple[Tensor, Tensor], ...]:
        """The context's own way through the layers, of which the noisy tokens see keys and values."""
        memory: list[tuple[Tensor, Tensor]] = []

        def keep(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, None]:
            memory.append((k, v))
            return k, v, None

        for block in self.blocks:
            h = block(h, c, rotary, keep)
        return tuple(memory)

    def draw(self, x_t: Tensor, t: Tensor, scene: Scene, seen: Tensor, s: Tensor | None = None) -> Tensor:
        """x_t (F, C, H, W), t (F,), seen (F, I·C, H, W): the frame that the context was made from, and the
        sketch; s (F,), read with `interval`: where the step from t on ends, None for a step of no length."""
        noisy = self.pixels_in(self.patches(x_t[:, None])) + self.place
        if self.add_context:
            noisy = noisy + scene.beside
        if self.join is not None:
            noisy = self.join(torch.cat([noisy, scene.beside], dim=-1))
        h = torch.cat([scene.known, noisy + self.kind[1]], dim=2)

        time = self.time(t)
        if self.until is not None:
            time = time + self.until(t if s is None else s)
        c = (time + scene.condition)[:, None, None]
        for i, block in enumerate(self.blocks):
            h = block(h, c, scene.rotary, behind(*scene.memory[i]) if scene.memory else alone)
        return self.final(h[:, :, -self.patches.count :], c, seen)


def alone(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, None]:
    """A frame that sees nothing but its own tokens."""
    return k, v, None


def behind(keys: Tensor, values: Tensor) -> Memory:
    """The memory of tokens that see others beside themselves."""

    def see(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, None]:
        return torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2), None

    return see
