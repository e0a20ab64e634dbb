"""Settings of the optimizer and of its learning rate. Without torch, so that --help answers at once."""

from __future__ import annotations

from dataclasses import dataclass

from scd_world.utils.checks import above, between


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW, and the learning rate over the course of a training: up, flat, linearly down to `floor`."""

    lr: float = 4e-4
    decoder_lr: float = 2.0  # the decoder's learning rate, in units of lr
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.0
    warmup: float = 0.02  # share of the steps
    decay: float = 0.3  # share of the steps, at the end
    floor: float = 0.02  # of the last step, in units of lr
    clip: float = 1.0  # largest norm of the gradient
    ema: float = 0.999  # decay of the average of the weights

    def __post_init__(self) -> None:
        above("optimiser.lr", self.lr, 0)
        between("optimiser.warmup + optimiser.decay", self.warmup + self.decay, 0, 1)
        between("optimiser.ema", self.ema, 0, 1)
