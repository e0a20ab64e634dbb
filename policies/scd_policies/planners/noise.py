"""Noise along a plan, whose neighboring steps belong together: white noise would cancel itself out."""

from __future__ import annotations

import numpy as np


def colored_noise(rng: np.random.Generator, plans: int, steps: int, size: int, exponent: float) -> np.ndarray:
    """Gives (N, H, A) float32 of variance 1 with power spectrum f^−β (Timmer & König 1995; iCEM, sec. 3.1).

    β 0 is white; 2 looks like a random walk. The lowest frequency of H steps stands in for f = 0.
    """
    frequency = np.fft.rfftfreq(steps)
    if len(frequency) > 1:
        frequency[0] = frequency[1]
    scale = frequency ** (-exponent / 2) if steps > 1 else np.ones(1)
    white = np.fft.rfft(rng.standard_normal((plans, size, steps)))
    # Parseval: the mean power of a real series, of which all frequencies but the outermost count twice.
    twice = np.full(len(scale), 2.0)
    twice[0] = 1.0
    if steps % 2 == 0 and steps > 1:
        twice[-1] = 1.0
    power = (twice * scale**2).sum() / steps
    noise = np.fft.irfft(white * scale, n=steps) / np.sqrt(power)
    return noise.swapaxes(1, 2).astype(np.float32)
