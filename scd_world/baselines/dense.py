"""The network of dense causal diffusion: every layer reads the whole past, at every denoising step.

Frame i of the history carries its state and the action taken there, as SCD's encoder has them; the frame that
is drawn carries the state it is drawn for and the action that leads to it, as SCD's decoder has them. Each
frame sees itself and the `window` frames before it.

As fast as we know how: a frame's keys and values are computed once and stay in a ring that is never copied;
the frame being drawn uses the ring's next slot, which its clean version will take over.

B batch, T frames, K noise draws, M = N + 1 tokens per frame (N patches, then the state_token), D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from scd_world.model.decoder import attend_with_prefix
from scd_world.model.kv_cache import RingKVCache
from scd_world.model.layers import (
    Block,
    FourierEmbedder,
    Patches,
    Rotary,
    TimestepEmbedder,
    band_mask,
    position_embedding,
    token_positions,
)

ClipKV = list[tuple[Tensor, Tensor]]  # per layer the keys and values (B, h, T·M, d) of a clip's history


class FrameSlot(NamedTuple):
    """What every denoising step of one frame shares: where it stands and what it sees."""

    rotary: tuple[Tensor, Tensor]
    mask: Tensor
    cache: RingKVCache


class DenseTransformer(nn.Module):
    def __init__(
        self,
        patches: Patches,
        state_action: int,
        delta_features: int,
        tasks: int,
        width: int,
        heads: int,
        layers: int,
        window: int,
        octaves: int,
        pixel_head: nn.Module,
    ) -> None:
        super().__init__()
        self.shares_kv = True  # what is drawn sees those of the history
        self.patches, self.window, self.state_action, self.heads = patches, window, state_action, heads
        self.patch_embed = nn.Linear(patches.values, width)
        self.position = position_embedding(patches.count + 1, width)
        self.type_embed = position_embedding(2, width)  # known, drawn
        self.known_state_embed = FourierEmbedder(state_action, width, octaves, delta_features + tasks)
        self.known_modulation_embed = FourierEmbedder(state_action, width, octaves, delta_features + tasks)
        self.noisy_state_embed = FourierEmbedder(state_action, width, octaves, tasks)
        self.noisy_modulation_embed = FourierEmbedder(state_action, width, octaves, tasks)
        self.time = TimestepEmbedder(width)
        self.rotary = Rotary(width // heads, *token_positions(patches))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.pixel_head = pixel_head

    # ---- a clip at once, to learn ----------------------------------------------------------------------

    def read(
        self, obs: Tensor, t: Tensor, state_action: Tensor, delta_features: Tensor
    ) -> tuple[Tensor, ClipKV]:
        """The history, (B, T, C, H, W), at noise levels t (B, T): h (B, T, M, D), and what drawing sees."""
        h, c = self.embed_known(obs, t, state_action, delta_features)
        mask = band_mask(h.shape[1], h.shape[2], self.window + 1, h.device)
        return self.run_clip(h, c, self.rotary(torch.arange(h.shape[1], device=h.device)), mask)

    def run_clip(
        self, h: Tensor, c: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor
    ) -> tuple[Tensor, ClipKV]:
        memory: ClipKV = []

        def remember(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            memory.append((k, v))
            return k, v, mask

        for block in self.blocks:
            h = block(h, c, rotary, remember)
        return h, memory

    def denoise_clip(
        self, x_t: Tensor, t: Tensor, state_action: Tensor, pixel_inputs: Tensor, memory: ClipKV
    ) -> Tensor:
        """x_t (K, B, T, C, H, W), t (K, B, T), state_action (B, T, S + A + tasks), pixel_inputs (B, T, I·C,
        H, W) → (K·B·T, C, H, W).

        One frame after the other: each has its own past, and so nothing is computed only to be masked.
        """
        K, T = x_t.shape[0], x_t.shape[2]

        def draws(x: Tensor) -> Tensor:
            return x.expand(K, *x.shape).flatten(0, 1)

        drawn = []
        for i in range(T):
            past = [tuple(draws(x) for x in self.past(layer, i, T)) for layer in memory]
            rotary = self.rotary(torch.tensor([i + 1], device=x_t.device))
            h, c = self.embed_noisy(
                x_t[:, :, i].flatten(0, 1), t[:, :, i].flatten(), draws(state_action[:, i])
            )
            for block, (keys, values) in zip(self.blocks, past, strict=True):
                h = block(h, c, rotary, attend_with_prefix(keys, values))
            drawn.append(
                self.pixel_head(
                    h[:, :, : self.patches.count],
                    c,
                    draws(pixel_inputs[:, i]),
                    x_t[:, :, i].flatten(0, 1),
                    t[:, :, i].flatten(),
                )
            )
        return torch.stack(drawn, dim=1).flatten(0, 1)

    def past(self, layer: tuple[Tensor, Tensor], i: int, T: int) -> tuple[Tensor, ...]:
        """What the frame after frame i sees of one layer's history."""
        M = layer[0].shape[2] // T
        visible = slice(max(i + 1 - self.window, 0) * M, (i + 1) * M)
        return layer[0][:, :, visible], layer[1][:, :, visible]

    # ---- frame by frame, to step -----------------------------------------------------------------------

    def write(
        self, obs: Tensor, t: Tensor, state_action: Tensor, delta_features: Tensor, cache: RingKVCache
    ) -> Tensor:
        """One known frame, (B, C, H, W), t (B,): h (B, M, D). Writes to the cache, advances it."""
        h, c = self.embed_known(obs[:, None], t[:, None], state_action[:, None], delta_features[:, None])
        h = self.run_blocks(h, c, self.now(cache))
        cache.advance()
        return h[:, 0]

    def denoise(
        self, x_t: Tensor, t: Tensor, state_action: Tensor, pixel_inputs: Tensor, now: FrameSlot
    ) -> Tensor:
        """What `predict` says of the next frame, (B, C, H, W). t (B,), state_action (B, S + A + tasks)."""
        h, c = self.embed_noisy(x_t, t, state_action)
        return self.pixel_head(
            self.run_blocks(h, c, now)[:, :, : self.patches.count], c, pixel_inputs, x_t, t
        )

    def now(self, cache: RingKVCache) -> FrameSlot:
        return FrameSlot(self.rotary(cache.position[None]), cache.visible(), cache)

    def run_blocks(self, h: Tensor, c: Tensor, now: FrameSlot) -> Tensor:
        for layer, block in enumerate(self.blocks):
            h = block(h, c, now.rotary, lambda k, v, layer=layer: (*now.cache.write(layer, k, v), now.mask))
        return h

    # ---- tokens ----------------------------------------------------------------------------------------

    def embed_known(
        self, obs: Tensor, t: Tensor, state_action: Tensor, delta_features: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, M, D), and the condition of their modulations (B, T, 1, D)."""
        state_token = self.known_state_embed(state_action, delta_features)[:, :, None]
        tokens = torch.cat([self.patch_embed(self.patches(obs)), state_token], dim=2)
        time = self.time(t.flatten()).unflatten(0, t.shape)
        c = time + self.known_modulation_embed(state_action, delta_features)
        return tokens + self.position + self.type_embed[0], c[:, :, None]

    def embed_noisy(self, x_t: Tensor, t: Tensor, state_action: Tensor) -> tuple[Tensor, Tensor]:
        """(F, 1, M, D), (F, 1, 1, D) of frames x_t (F, C, H, W), t (F,), state_action (F, S + A + tasks)."""
        state_action, task = state_action.tensor_split([self.state_action], dim=-1)
        state_token = self.noisy_state_embed(state_action, task)[:, None, None]
        tokens = torch.cat([self.patch_embed(self.patches(x_t[:, None])), state_token], dim=2)
        c = self.time(t) + self.noisy_modulation_embed(state_action, task)
        return tokens + self.position + self.type_embed[1], c[:, None, None]
