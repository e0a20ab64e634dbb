"""What each row's next frame is drawn from: noise that its seed and its step decide, and nothing else.

No generator has to be carried, saved and branched, no row waits for another's turn, and all devices agree to
the last rounding. The counter goes through splitmix64 (Steele et al. 2014), its bits through Box and Muller.

B rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # as a signed number: integers wrap
BITS = 24  # of a uniform number: what a float32 holds


def row_noise(seeds: Tensor, steps: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Standard normal, (B, *shape) float32, on the device of `seeds` (B,) and `steps` (B,), both int64."""
    count = math.prod(shape)
    pairs = torch.arange((count + 1) // 2, device=seeds.device)
    key = mix(mix(seeds) + GOLDEN * steps)
    bits = mix(key[:, None] + GOLDEN * pairs)
    radius = (-2 * uniform(bits, 64 - BITS).log()).sqrt()
    turn = 2 * math.pi * uniform(bits, 64 - 2 * BITS)
    normal = torch.cat([radius * turn.cos(), radius * turn.sin()], dim=1)
    return normal[:, :count].unflatten(1, shape)


def mix(x: Tensor) -> Tensor:
    """splitmix64's last step: every bit of the sum decides about every bit of the result."""
    x = (x ^ shifted(x, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    x = (x ^ shifted(x, 27)) * (0x94D049BB133111EB - 2**64)
    return x ^ shifted(x, 31)


def shifted(x: Tensor, places: int) -> Tensor:
    """x >> places, with zeros coming in; torch's own shift repeats the sign."""
    return (x >> places) & ((1 << (64 - places)) - 1)


def uniform(bits: Tensor, place: int) -> Tensor:
    """(0, 1), of the `BITS` bits that begin at `place`."""
    return (((bits >> place) & ((1 << BITS) - 1)).float() + 0.5) * 2.0**-BITS
