"""The transformer block that encoder and decoder share: adaLN-zero, qk-norm, rotary (frame, row, column).

B batch, T frames, M tokens per frame, D width, h heads, d = D/h.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from scd_world.utils.banded_attention import banded_attention
from scd_world.utils.checks import check_patch


class FrameBand(NamedTuple):
    """Frame i sees frame j where 0 ≤ i − j < window, of queries and keys of the same frames."""

    frames: int
    window: int
    mask: Tensor  # (T·M, T·M) bool: the same, token by token


# What a block's queries may see: gets the new keys and values (B, h, T·M, d), gives the keys and values to
# attend to and a boolean mask that broadcasts to (B, h, queries, keys), True = visible, or None = all.
AttendTo = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor | FrameBand | None]]


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | FrameBand | None) -> Tensor:
    """Softmax attention, (B, h, queries, d). On the CPU, torch's fused kernel has a slow backward pass."""
    fused = q.is_cuda or not torch.is_grad_enabled()
    if isinstance(mask, FrameBand):
        if not (fused or torch.compiler.is_compiling()):
            return banded_attention(q, k, v, mask.frames, mask.window)
        mask = mask.mask
    if fused:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1) @ v


def modulate(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return h * (1 + scale) + shift


class Rotary(nn.Module):
    """Rotary angles of tokens at (frame, row, column); relative, so it does not matter where frames start."""

    space: Tensor  # (M, row + column)
    frame: Tensor

    def __init__(self, head_width: int, rows: Tensor, columns: Tensor) -> None:
        super().__init__()
        half = head_width // 2
        of_frame = half // 4
        of_row = (half - of_frame) // 2
        of_column = half - of_frame - of_row
        space = torch.cat(
            [rows[:, None] * frequencies(of_row, 100.0), columns[:, None] * frequencies(of_column, 100.0)],
            dim=-1,
        )
        self.register_buffer("space", space, persistent=False)
        self.register_buffer("frame", frequencies(of_frame, 1000.0), persistent=False)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """frames (T,) int → cosines (T·M, d), and sines with the signs that `rotate` wants. In float64: an
        episode has no last frame."""
        T, M = len(frames), len(self.space)
        time = (frames.double()[:, None] * self.frame)[:, None].expand(T, M, -1)
        angles = torch.cat([time, self.space.expand(T, M, -1)], dim=-1).flatten(0, 1)
        cos, sin = angles.cos().float(), angles.sin().float()
        return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def frequencies(count: int, longest: float) -> Tensor:
    return longest ** (-torch.arange(count, dtype=torch.float64) / max(count, 1))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the pairs (x1, x2) of the last dimension: (x1 cos − x2 sin, x2 cos + x1 sin)."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.LayerNorm(width // heads, eps=1e-6)
        self.k_norm = nn.LayerNorm(width // heads, eps=1e-6)
        self.out = nn.Linear(width, width)

    def forward(self, h: Tensor, rotary: tuple[Tensor, Tensor], memory: AttendTo, first: int = 0) -> Tensor:
        """h (B, T, M, D) → (B, T, M − first, D); of one frame the tokens before `first` are seen alone."""
        T = h.shape[1]
        q, k, v = self.split_heads(self.qkv(h))
        cos, sin = (angles.to(v.dtype) for angles in rotary)
        q = rotate(self.q_norm(q).to(v.dtype), cos, sin)
        k = rotate(self.k_norm(k).to(v.dtype), cos, sin)
        mixed = attention(q[:, :, first:] if first else q, *memory(k, v))
        return self.out(rearrange(mixed, "b h (t m) d -> b t m (h d)", t=T))

    def keys_values(self, h: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Gives what others see of tokens (B, T, M, D) that ask nothing: (B, h, T·M, d) each."""
        D = h.shape[-1]
        k, v = self.split_heads(F.linear(h, self.qkv.weight[D:], self.qkv.bias[D:]))
        cos, sin = (angles.to(v.dtype) for angles in rotary)
        return rotate(self.k_norm(k).to(v.dtype), cos, sin), v

    def split_heads(self, values: Tensor) -> Tensor:
        """(B, T, M, n·D) → (n, B, h, T·M, d): queries, keys and values, or keys and values alone."""
        d = self.q_norm.normalized_shape[0]
        return rearrange(values, "b t m (n h d) -> n b h (t m) d", h=self.heads, d=d)


class Block(nn.Module):
    """One transformer layer, modulated per frame (DiT's adaLN-zero)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.modulation = nn.Sequential(nn.SiLU(), zero_init(nn.Linear(width, 6 * width)))

    def forward(
        self, h: Tensor, c: Tensor, rotary: tuple[Tensor, Tensor], memory: AttendTo, first: int = 0
    ) -> Tensor:
        """h (B, T, M, D), c (B, T, 1, D) → (B, T, M − first, D): of one frame, the tokens before `first` are
        seen by the others and go no further."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c).chunk(6, dim=-1)
        mixed = self.attention(modulate(self.norm1(h), shift1, scale1), rotary, memory, first)
        h = (h[:, :, first:] if first else h) + gate1 * mixed
        return h + gate2 * self.mlp(modulate(self.norm2(h), shift2, scale2))

    def keys_values(self, h: Tensor, c: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Gives what others see here of h (B, T, M, D) that goes no further: (B, h, T·M, d) each."""
        shift, scale, *_ = self.modulation(c).chunk(6, dim=-1)
        return self.attention.keys_values(modulate(self.norm1(h), shift, scale), rotary)


class FourierEmbedder(nn.Module):
    """A vector in about [-1, 1] → D features; the octaves let a network tell neighboring values apart.

    `plain` further values are given as they are: those of which only the coarse size matters.
    """

    octaves: Tensor

    def __init__(self, size: int, width: int, octaves: int, plain: int = 0) -> None:
        super().__init__()
        self.register_buffer("octaves", math.pi * 2.0 ** torch.arange(octaves), persistent=False)
        self.mlp = nn.Sequential(
            nn.Linear(size * (1 + 2 * octaves) + plain, 2 * width),
            nn.SiLU(),
            nn.Linear(2 * width, 2 * width),
            nn.SiLU(),
            nn.Linear(2 * width, width),
        )

    def forward(self, x: Tensor, *plain: Tensor) -> Tensor:
        """(…, size), (…, plain) → (…, D)."""
        angles = (x[..., None] * self.octaves).flatten(-2)
        return self.mlp(torch.cat([x, angles.sin(), angles.cos(), *plain], dim=-1))


class TimestepEmbedder(nn.Module):
    """Denoising time t in [0, 1] → D features; those that turn faster than `fastest` stay at zero."""

    frequencies: Tensor
    frequency_mask: Tensor

    def __init__(self, width: int, features: int = 128, fastest: float = 1000.0) -> None:
        super().__init__()
        rates = 1000.0 * frequencies(features // 2, 10000.0).float()
        self.register_buffer("frequencies", rates, persistent=False)
        self.register_buffer("frequency_mask", (rates <= fastest).float().repeat(2), persistent=False)
        self.mlp = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))

    def zero_init(self) -> None:
        """Adds nothing until it has learnt to: a network that was trained without it goes on as it was."""
        last = self.mlp[-1]
        assert isinstance(last, nn.Linear)
        zero_init(last)

    def forward(self, t: Tensor) -> Tensor:
        angles = t.float()[:, None] * self.frequencies
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1) * self.frequency_mask)


class Patches(nn.Module):
    """Images of one or several cameras ↔ tokens: a grid of patches per camera, one after another."""

    def __init__(self, cameras: int, height: int, width: int, patch: int) -> None:
        super().__init__()
        check_patch(patch, height, width)
        self.cameras, self.patch, self.grid = cameras, patch, (height // patch, width // patch)
        self.count = cameras * self.grid[0] * self.grid[1]
        self.values = 3 * patch * patch

    def forward(self, obs: Tensor) -> Tensor:
        """(B, T, 3·V, H, W) → (B, T, N, 3·patch²)."""
        p = self.patch
        return rearrange(obs, "b t (v c) (y p) (x q) -> b t (v y x) (c p q)", c=3, p=p, q=p)

    def inverse(self, tokens: Tensor) -> Tensor:
        """(B, T, N, c·patch²) → (B, T, c·V, H, W), for any number c of values per pixel."""
        y, x = self.grid
        return rearrange(
            tokens, "b t (v y x) (c p q) -> b t (v c) (y p) (x q)", p=self.patch, q=self.patch, y=y, x=x
        )

    def positions(self) -> tuple[Tensor, Tensor]:
        """Row and column of every token, (N,) each."""
        y, x = self.grid
        rows = torch.arange(y).repeat_interleave(x).repeat(self.cameras)
        columns = torch.arange(x).repeat(y * self.cameras)
        return rows, columns


def attend_within(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, None]:
    """A frame that sees nothing but its own tokens."""
    return k, v, None


def attend_with_prefix(keys: Tensor, values: Tensor) -> AttendTo:
    """Tokens that see others beside themselves, of which there are keys and values (B, h, m, d)."""

    def see(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, None]:
        return torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2), None

    return see


def zero_init[L: nn.Linear | nn.Conv2d](layer: L) -> L:
    """Sets weights and bias to zero: before training, the layer adds nothing."""
    assert layer.bias is not None
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def position_embedding(count: int, width: int) -> nn.Parameter:
    """As large as the tokens that it is added to: at the usual 0.02 it drowns in a noisy patch."""
    return nn.Parameter(0.5 * torch.randn(count, width))


def zero_slice(x: Tensor, first: int, last: int | None = None) -> Tensor:
    """(…, n) with zeros from `first` up to `last`, or to the end."""
    x = x.clone()
    x[..., first:last] = 0
    return x


def token_positions(patches: Patches) -> tuple[Tensor, Tensor]:
    """Row and column of each of the M tokens; the state token sits in the corner."""
    rows, columns = patches.positions()
    corner = torch.zeros(1, dtype=rows.dtype)
    return torch.cat([rows, corner]), torch.cat([columns, corner])


def band_mask(T: int, M: int, window: int, device: torch.device) -> Tensor:
    """(T·M, T·M) bool: frame i sees frame j where 0 ≤ i − j < window."""
    frame = torch.arange(T, device=device).repeat_interleave(M)
    age = frame[:, None] - frame[None, :]
    return (age >= 0) & (age < window)
