"""Clips as a camera a little to the side would have seen them: more to learn from, where recordings are few.

B clips, T steps, H W cells of a frame.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from scd_world.robot_data.clip import Clip


def random_shifts(rows: int, most: int, generator: torch.Generator) -> Tensor:
    """Draws how far each clip is moved down and right: int (B, 2) in [-most, most]."""
    return torch.randint(-most, most + 1, (rows, 2), generator=generator)


def shift_clip(clip: Clip, shifts: Tensor) -> Clip:
    """Moves all frames of a clip alike, by int (B, 2) cells down and right; what comes into view repeats the
    edge (random shift: DrQ-v2, Yarats et al. 2021, §3.1)."""
    return replace(clip, obs=shift(clip.obs, shifts), anchor=shift(clip.anchor, shifts))


def shift(frames: Tensor, shifts: Tensor) -> Tensor:
    """frames (B, …, H, W)"""
    H, W = frames.shape[-2:]
    down, right = shifts.to(frames.device).T[..., None]  # (B, 1) each
    y = (torch.arange(H, device=frames.device) - down).clamp(0, H - 1)
    x = (torch.arange(W, device=frames.device) - right).clamp(0, W - 1)
    row = torch.arange(len(frames), device=frames.device)[:, None, None]
    moved = frames.flatten(1, -3)[row, :, y[:, :, None], x[:, None]]  # (B, H, W, …)
    return moved.movedim(-1, 1).unflatten(1, frames.shape[1:-2]).contiguous()
