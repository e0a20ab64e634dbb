"""Attention of frames to the frames before them, frame by frame: what a mask would hide is not computed.

On a CPU a dense mask costs more than it hides: scores are made, filled, and their gradients filled once more.
Frame i meets the keys of frames i − window + 1 … i alone, without a mask.

G batch and heads, T frames, M tokens per frame, d head width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def banded_attention(q: Tensor, k: Tensor, v: Tensor, frames: int, window: int) -> Tensor:
    """Softmax attention (B, h, T·M, d), frame i to frame j where 0 ≤ i − j < window.

    First derivatives only.
    """
    return BandedAttention.apply(q, k, v, frames, window)


class BandedAttention(torch.autograd.Function):
    """o = softmax(q kᵀ / √d) v and its gradients, one frame of queries at a time."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, frames: int, window: int) -> Tensor:
        shape, ctx.scale, ctx.bands = q.shape, q.shape[-1] ** -0.5, bands(q.shape[2], frames, window)
        q, k, v = (x.flatten(0, 1) for x in (q * ctx.scale, k, v))  # (G, T·M, d)
        out, chances = torch.empty_like(v), []
        for now, seen in ctx.bands:
            p = (q[:, now] @ k[:, seen].mT).softmax(-1, dtype=torch.float32).to(q.dtype)
            out[:, now] = p @ v[:, seen]
            chances.append(p)
        ctx.save_for_backward(q, k, v, *chances)
        return out.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, *chances = ctx.saved_tensors
        shape, grad = grad.shape, grad.flatten(0, 1)
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for (now, seen), p in zip(ctx.bands, chances, strict=True):
            # ds = p ∘ (dp − Σ p ∘ dp), where dp = do vᵀ
            ds = torch._softmax_backward_data(grad[:, now] @ v[:, seen].mT, p, -1, p.dtype)
            dq[:, now] = ds @ k[:, seen]
            dk[:, seen].baddbmm_(ds.mT, q[:, now])
            dv[:, seen].baddbmm_(p.mT, grad[:, now])
        return dq.mul_(ctx.scale).view(shape), dk.view(shape), dv.view(shape), None, None


def bands(tokens: int, frames: int, window: int) -> list[tuple[slice, slice]]:
    """Gives each frame's queries, and the keys that they see."""
    M = tokens // frames
    ends = [(i * M, (i + 1) * M, max(0, i - window + 1) * M) for i in range(frames)]
    return [(slice(begin, end), slice(oldest, end)) for begin, end, oldest in ends]
