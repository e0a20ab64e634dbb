"""Flow matching: the straight path from data to noise, its training target and its Euler sampler.

x_t = (1 − t)·x + t·noise,  v = noise − x,  t = 1 is noise, t = 0 is data.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

# (x_t (F, C, H, W), t (F,), s (F,)) → the velocity on the way from t down to s, (F, C, H, W).
VelocityField = Callable[[Tensor, Tensor, Tensor], Tensor]
# The clean frame (F, C, H, W) that is first seen in pure noise: what is made of it, or one in its place.
FirstFrame = Callable[[Tensor], Tensor] | Tensor


def interpolate(x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t = (1 − t)·x + t·noise; t broadcasts from the left."""
    t = t.reshape(*t.shape, *(1,) * (x.ndim - t.ndim))
    return (1 - t) * x + t * noise


def logit_normal(normal: Tensor, mean: float, std: float) -> Tensor:
    """t = sigmoid(mean + std·n), n ~ N(0, 1): how often each noise level is trained."""
    return torch.sigmoid(mean + std * normal)


def shift_time[Time: (float, Tensor)](t: Time, shift: float) -> Time:
    """t' = a·t / (a·t + 1 − t): where noise over data is a times what it is at t, 0 and 1 as they are
    ("Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", arXiv 2403.03206, eq. 23)."""
    return t if shift == 1 else shift * t / (shift * t + (1 - t))


def to_velocity(predict: str, out: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """v = noise − x of (F, C, H, W), t (F,), in float32, whatever a network's output means: "x" or "v"."""
    return (x_t - out.float()) / t[:, None, None, None] if predict == "x" else out.float()


def denoising_times(num_steps: int, shift: float) -> list[float]:
    """Gives where denoising steps begin and end, num_steps + 1 times from 1 to 0: equal steps, shifted."""
    return [shift_time(1 - i / num_steps, shift) for i in range(num_steps + 1)]


def euler_sample(
    velocity: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor,
    num_steps: int,
    shift: float = 1.0,
    first: FirstFrame | None = None,
) -> Tensor:
    """Euler: x ← x + (t' − t)·v(x, t) from t = 1 to t = 0. noise (F, C, H, W)."""
    return euler_sample_interval(lambda x, t, _: velocity(x, t), noise, num_steps, shift, first)


def euler_sample_interval(
    field: VelocityField,
    noise: Tensor,
    num_steps: int,
    shift: float = 1.0,
    first: FirstFrame | None = None,
) -> Tensor:
    """The same, of a velocity that asks where each step ends. noise (F, C, H, W).

    first: of the clean frame x̂ = noise − v that the first step sees, what is made of it by what is known
    otherwise, or a frame in its place, for which no velocity is asked. All further steps go on from there,
    under the noise that is left: x_s = (1 − s)·first + s·noise.
    """
    x, times = noise.float(), denoising_times(num_steps, shift)
    for t, s in pairwise(times):
        now, end = (torch.full((len(x),), time, device=x.device) for time in (t, s))
        if t == 1 and first is not None:
            clean = first if isinstance(first, Tensor) else first(x - field(x, now, end))
            x = (1 - s) * clean + s * x
        else:
            x = x + (s - t) * field(x, now, end)
    return x
