"""What a model learns from: each frame with the state and action before it."""

from __future__ import annotations

import torch
from torch import Tensor

from scd_world.model.config import ModelConfig
from scd_world.model.noise import Noise
from scd_world.robot_data.clip import Clip


def previous_state_action(state: Tensor, act: Tensor, first: Tensor) -> Tensor:
    """State and action one frame earlier (B, T, S + A), of states (B, T, S) and actions (B, T, A); before the
    first frame `first` (B, S + A)."""
    return shift_right(torch.cat([state, act], dim=-1), first)


def shift_right(x: Tensor, first: Tensor | None = None) -> Tensor:
    """What was one frame earlier, (B, T, …); before the first frame `first`, or else nothing has moved."""
    return torch.cat([x[:, :1] if first is None else first[:, None], x[:, :-1]], dim=1)


def corrupt_history(
    config: ModelConfig, clip: Clip, noise: Noise, delta_scale: Tensor
) -> tuple[Tensor, Tensor]:
    """Gives frames (B, T, C, H, W) and states (B, T, S) with noise and blends of neighboring frames.

    When stepping, the history is the model's own work: this makes it forgiving. delta_scale (S,): the usual
    change of the state per step.
    """
    level = noise.corruption_level[:, None, None, None, None]
    obs = clip.obs[:, :-1]
    obs = obs + config.frame_blend * level * (shift_right(obs) - obs)
    state = clip.state[:, :-1] + config.state_noise * delta_scale * noise.state
    if noise.obs is not None:
        obs = obs + config.frame_noise * level * noise.obs
    return obs, state
