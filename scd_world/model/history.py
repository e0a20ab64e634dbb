"""What a model learns from: each frame with the state and action before it."""

from __future__ import annotations

import torch
from torch import Tensor


def frame_before(state: Tensor, act: Tensor, first: Tensor) -> Tensor:
    """State and action one frame earlier (B, T, S + A), of states (B, T, S) and actions (B, T, A); before the
    first frame `first` (B, S + A)."""
    return before_each(torch.cat([state, act], dim=-1), first)


def before_each(x: Tensor, first: Tensor | None = None) -> Tensor:
    """What was one frame earlier, (B, T, …); before the first frame `first`, or else nothing has moved."""
    return torch.cat([x[:, :1] if first is None else first[:, None], x[:, :-1]], dim=1)
