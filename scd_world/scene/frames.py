"""Frames of a recording, each with another one of its episode, as the renderer and the cameras learn of them.

F frames, S state, A action, C H W frame.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class FramesToDraw(NamedTuple):
    """Frames, and what they are drawn by."""

    obs: Tensor  # (F, C, H, W)
    state: Tensor  # (F, S)
    prev: Tensor  # (F, S + A) state and action one frame earlier
    shown: Tensor  # (F, C, H, W) another frame of each one's episode, off which the scene is read
    shown_state: Tensor  # (F, 2·S + A) the state there; state and action one frame earlier
