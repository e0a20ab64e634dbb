"""The learning rate over the course of a training: up, flat, linearly down."""

from __future__ import annotations

from scd_world.optim.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, progress: float) -> float:
    """The rate of the update that brings the training to `progress` in (0, 1]."""
    return config.lr * lr_schedule(progress, config.warmup_share, config.decay_share, config.min_lr_ratio)


def lr_schedule(progress: float, warmup: float, decay: float, floor: float) -> float:
    """Of a learning rate: up over the share `warmup` of the updates, flat, linearly down over `decay`."""
    up, down = progress / max(warmup, 1e-9), (1 - progress) / max(decay, 1e-9)
    return min(1.0, up, max(down, floor))
