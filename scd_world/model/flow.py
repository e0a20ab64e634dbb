"""Flow matching: the straight path from data to noise, its training target and its Euler sampler.

x_t = (1 − t)·x + t·noise,  v = noise − x,  t = 1 is noise, t = 0 is data.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# (x_t (F, C, H, W), t (F,), s (F,)) → the velocity on the way from t down to s, (F, C, H, W).
VelocityField = Callable[[Tensor, Tensor, Tensor], Tensor]


def interpolate(x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t = (1 − t)·x + t·noise; t broadcasts from the left."""
    t = t.reshape(*t.shape, *(1,) * (x.ndim - t.ndim))
    return (1 - t) * x + t * noise


def logit_normal(normal: Tensor, mean: float, std: float) -> Tensor:
    """t = sigmoid(mean + std·n), n ~ N(0, 1): how often each noise level is trained."""
    return torch.sigmoid(mean + std * normal)


def to_velocity(predict: str, out: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """v = noise − x of (F, C, H, W), t (F,), in float32, whatever a network's output means: "x" or "v"."""
    return (x_t - out.float()) / t[:, None, None, None] if predict == "x" else out.float()


def euler_sample(velocity: Callable[[Tensor, Tensor], Tensor], noise: Tensor, num_steps: int) -> Tensor:
    """Euler: x ← x + (t' − t)·v(x, t) from t = 1 to t = 0 in equal steps. noise (F, C, H, W)."""
    x = noise.float()
    for i in range(num_steps):
        t = 1 - i / num_steps
        x = x - velocity(x, torch.full((len(x),), t, device=x.device)) / num_steps
    return x


def euler_sample_interval(field: VelocityField, noise: Tensor, num_steps: int) -> Tensor:
    """The same, of a velocity that asks where each step ends. noise (F, C, H, W)."""
    return euler_sample(lambda x, t: field(x, t, (t - 1 / num_steps).clamp_min(0)), noise, num_steps)
