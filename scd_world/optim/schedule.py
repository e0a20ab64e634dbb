"""The learning rate over the course of a training: up, flat, linearly down."""

from __future__ import annotations

from scd_world.optim.config import OptimiserConfig


def learning_rate(config: OptimiserConfig, progress: float) -> float:
    """The rate of the update that brings the training to `progress` in (0, 1]."""
    return config.lr * course(progress, config.warmup, config.decay, config.floor)


def course(progress: float, warmup: float, decay: float, floor: float) -> float:
    """Of a learning rate: up over the share `warmup` of the updates, flat, linearly down over `decay`."""
    up, down = progress / max(warmup, 1e-9), (1 - progress) / max(decay, 1e-9)
    return min(1.0, up, max(down, floor))
