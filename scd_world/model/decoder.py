"""The frame-wise decoder D: renders one frame from its context, and never sees another frame.

v = D([c_i ; x_i^t], t) (paper eq. 5). What does not change from one denoising step to the next is computed
once per frame, as a `DecoderContext`; `denoise` is what a denoising step costs. How the noisy tokens learn of
the context is `fusion`:

* concat: context and noisy tokens are one sequence, as in the paper. Both halves share the rotary positions
  and are told apart by a type embedding; the context passes through all layers at each denoising step.
* one_way: the context's half sees itself alone, and not the time: so its keys and values are made once per
  frame, and a denoising step moves the noisy tokens only.
* channel: each noisy token is joined with its patch's context token; the sequence is half as long.
* none: `add_context` alone, the cheapest.

`add_context` adds the context to the noisy tokens besides: it spares the network from learning first which
context token belongs to which patch. Most of a robot's image stands still: the last layer
(`pixel_heads.py`) may keep pixels of the last frame.

F frames (batch, time and noise draws folded together), N patches, M = N + 1 context tokens, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from scd_world.model.layers import (
    Block,
    FourierEmbedder,
    Patches,
    Rotary,
    TimestepEmbedder,
    attend_with_prefix,
    attend_within,
    position_embedding,
    token_positions,
    zero_slice,
)

# An average velocity is learnt from its derivative in t, and a ripple of 1e-3 that turns a thousand times
# faster than t has a derivative of 1. In trained worlds the faster features draw nothing else.
MAX_TIME_FREQUENCY = 30.0


class DecoderContext(NamedTuple):
    """What all denoising steps of a frame share."""

    prefix_tokens: Tensor  # (F, 1, m, D) stand before the noisy ones in each layer; m = 0 with one_way
    patch_ctx: Tensor  # (F, 1, N, D) the context of each patch
    condition: Tensor  # (F, D) of state and action
    rotary: tuple[Tensor, Tensor]  # of known and noisy tokens
    ctx_kv: tuple[tuple[Tensor, Tensor], ...]  # one_way: keys and values (F, h, M, d) of it per layer

    def repeat(self, K: int) -> DecoderContext:
        """The same for K draws of each frame, draws first."""

        def draws(x: Tensor) -> Tensor:
            return torch.cat([x] * K)  # on a CPU gradients of an expanded tensor are summed ten times slower

        ctx_kv = tuple((draws(k), draws(v)) for k, v in self.ctx_kv)
        return DecoderContext(
            draws(self.prefix_tokens), draws(self.patch_ctx), draws(self.condition), self.rotary, ctx_kv
        )


class Decoder(nn.Module):
    def __init__(
        self,
        patches: Patches,
        state_action: int,
        width: int,
        heads: int,
        layers: int,
        octaves: int,
        tasks: int,
        fusion: str,
        add_context: bool,
        interval: bool,
        pixel_head: nn.Module,
        masked_action_dims: int = 0,
    ) -> None:
        """state_action: S + A; pixel_head: of `pixel_heads.py`; masked_action_dims: A where the decoder is
        not given the action."""
        super().__init__()
        self.masked_action_dims = masked_action_dims
        self.shares_kv = fusion == "one_way"
        self.patches, self.state_action = patches, state_action
        self.fusion, self.add_context = fusion, add_context
        self.patch_embed = nn.Linear(patches.values, width)
        self.position = position_embedding(patches.count, width)
        self.type_embed = position_embedding(2, width)  # context, noisy
        self.state_embed = FourierEmbedder(state_action, width, octaves, tasks)
        self.modulation_embed = FourierEmbedder(state_action, width, octaves, tasks)
        self.time = TimestepEmbedder(width, fastest=MAX_TIME_FREQUENCY if interval else 1000.0)
        self.target_time = TimestepEmbedder(width, fastest=MAX_TIME_FREQUENCY) if interval else None
        if self.target_time is not None:
            self.target_time.zero_init()
        self.merge = nn.Linear(2 * width, width) if fusion == "channel" else None
        rows, columns = token_positions(patches)
        self.rotary_known = Rotary(width // heads, rows, columns)
        self.rotary_noisy = Rotary(width // heads, rows[:-1], columns[:-1])
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.pixel_head = pixel_head

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        ctx: Tensor,
        state_action: Tensor,
        pixel_inputs: Tensor,
        s: Tensor | None = None,
    ) -> Tensor:
        """What `predict` says, (F, C, H, W), of a single step; arguments as of `prepare` and `denoise`."""
        return self.denoise(x_t, t, self.prepare(ctx, state_action), pixel_inputs, s)

    def prepare(self, ctx: Tensor, state_action: Tensor) -> DecoderContext:
        """ctx (F, M, D), state_action (F, S + A + tasks): next state, action, task."""
        state_action, task = state_action.tensor_split([self.state_action], dim=-1)
        if self.masked_action_dims:
            state_action = zero_slice(state_action, self.state_action - self.masked_action_dims)
        N, condition = self.patches.count, self.modulation_embed(state_action, task)
        patch_ctx = ctx[:, None, :N]
        state_token = ctx[:, None, N:] + self.state_embed(state_action, task)[:, None, None]
        context = torch.cat([patch_ctx, state_token], dim=2) + self.type_embed[0]
        of_known, of_noisy = self.angles(ctx.device)
        if self.fusion == "one_way":
            ctx_kv = self.context_kv(context, condition[:, None, None], of_known)
            return DecoderContext(context[:, :, :0], patch_ctx, condition, of_noisy, ctx_kv)
        (cosines, sines), (noisy_cosines, noisy_sines) = of_known, of_noisy
        if self.fusion != "concat":  # the patches' context joins the noisy tokens; the state token's cannot
            context, cosines, sines = context[:, :, N:], cosines[N:], sines[N:]
        rotary = torch.cat([cosines, noisy_cosines]), torch.cat([sines, noisy_sines])
        return DecoderContext(context, patch_ctx, condition, rotary, ())

    def angles(self, device: torch.device) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        now = torch.zeros(1, dtype=torch.long, device=device)
        return self.rotary_known(now), self.rotary_noisy(now)

    def context_kv(
        self, h: Tensor, c: Tensor, rotary: tuple[Tensor, Tensor]
    ) -> tuple[tuple[Tensor, Tensor], ...]:
        """The context's own way through the layers, of which the noisy tokens see keys and values."""
        ctx_kv: list[tuple[Tensor, Tensor]] = []

        def keep(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, None]:
            ctx_kv.append((k, v))
            return k, v, None

        for block in self.blocks[:-1]:
            h = block(h, c, rotary, keep)
        for last in self.blocks[-1:]:  # none, or one: nobody reads what it would make of the context
            assert isinstance(last, Block)
            ctx_kv.append(last.keys_values(h, c, rotary))
        return tuple(ctx_kv)

    def denoise(
        self, x_t: Tensor, t: Tensor, context: DecoderContext, pixel_inputs: Tensor, s: Tensor | None = None
    ) -> Tensor:
        """x_t (F, C, H, W), t (F,), pixel_inputs (F, I·C, H, W): the frame that the context was made from,
        and the prior's drawing; s (F,), read with `interval`: where the step from t on ends, None for a step
        of no length."""
        noisy = self.patch_embed(self.patches(x_t[:, None])) + self.position
        if self.add_context:
            noisy = noisy + context.patch_ctx
        if self.merge is not None:
            noisy = self.merge(torch.cat([noisy, context.patch_ctx], dim=-1))
        h = torch.cat([context.prefix_tokens, noisy + self.type_embed[1]], dim=2)

        time = self.time(t)
        if self.target_time is not None:
            time = time + self.target_time(t if s is None else s)
        c = (time + context.condition)[:, None, None]
        prefix, last = context.prefix_tokens.shape[2], len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            attend = attend_with_prefix(*context.ctx_kv[i]) if context.ctx_kv else attend_within
            # Nobody reads what the last layer would make of the prefix.
            h = block(h, c, context.rotary, attend, first=prefix if i == last else 0)
        return self.pixel_head(h[:, :, -self.patches.count :], c, pixel_inputs, x_t, t)
