"""Settings of the optimizer and of its learning rate. Without torch, so that --help answers at once."""

from __future__ import annotations

from dataclasses import dataclass

from scd_world.utils.checks import above, between


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, and the learning rate over the course of a training: up, flat, linearly down to `floor`."""

    lr: float = 4e-4  # the highest learning rate
    decoder_lr_ratio: float = 2.0  # the decoder's learning rate, in units of lr
    beta1: float = 0.9  # AdamW's decay of the average gradient
    beta2: float = 0.95  # AdamW's decay of the average squared gradient
    weight_decay: float = 0.0  # AdamW's, per update in units of the learning rate
    warmup_share: float = 0.02  # share of the steps
    decay_share: float = 0.3  # share of the steps, at the end
    min_lr_ratio: float = 0.02  # of the last step, in units of lr
    grad_clip_norm: float = 1.0  # largest norm of the gradient
    ema_decay: float = 0.999  # decay of the average of the weights

    def __post_init__(self) -> None:
        above("optimizer.lr", self.lr, 0)
        between("optimizer.warmup_share + optimizer.decay_share", self.warmup_share + self.decay_share, 0, 1)
        between("optimizer.ema_decay", self.ema_decay, 0, 1)
