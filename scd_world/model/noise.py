"""Everything random that one loss needs, drawn beforehand: equal noise gives equal losses.

B batch, T steps, K noise draws, C H W frame, M context tokens, D width, S state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from scd_world.model.config import ModelConfig
from scd_world.robot_data.clip import Clip, shift_right

OF_DRAWS = ("t", "x")  # the fields whose first axis is K; of all others it is B


@dataclass(frozen=True)
class Noise:
    """Everything random that one loss needs; drawn by a model's `draw_noise`. None: this model needs none."""

    t: Tensor  # (K, B, T) standard normal, becomes t
    x: Tensor  # (K, B, T, C, H, W)
    state: Tensor  # (B, T, S)
    corruption_level: Tensor  # (B,) uniform, how noisy this clip's input frames are
    self_rollout: Tensor | None = (
        None  # (B,) uniform: below self_rollout_share a clip's past is imagined; None: of no clip
    )
    obs: Tensor | None = None  # (B, T, C, H, W), None where frame_noise is 0
    ctx: Tensor | None = None  # (B, T, M, D) perturbs SCD's context
    history_t: Tensor | None = None  # (B, T) what becomes the noise level of each frame of the history
    history_x: Tensor | None = None  # (B, T, C, H, W) their noise
    history_clean: Tensor | None = None  # (B, T) uniform, which of them stay clean
    measured: Tensor | None = None  # (B,) uniform: below measured_share a clip learns from what is measured

    def rows(self, rows: slice | Tensor) -> Noise:
        """The noise of these rows of the batch."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        mine: dict[str, Any] = {
            name: value if value is None else value[:, rows] if name in OF_DRAWS else value[rows]
            for name, value in values.items()
        }
        return Noise(**mine)

    def of_recordings(self) -> Noise:
        """Of no clip anything is the model's own work: losses of differently trained models can be
        compared."""
        return replace(self, self_rollout=None, measured=None)


class NoiseSampler:
    """Samples on the generator's device, gives the samples on another."""

    def __init__(self, generator: torch.Generator, device: torch.device) -> None:
        self.generator, self.device = generator, device

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.generator.device).to(self.device)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.generator.device).to(self.device)


GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # as a signed number: integers wrap
BITS = 24  # of a uniform number: what a float32 holds


def row_noise(
    seeds: Tensor, steps: Tensor, shape: tuple[int, ...], device: torch.device | None = None
) -> Tensor:
    """Standard normal, (B, *shape) float32, of `seeds` (B,) and `steps` (B,), both int64.

    device: where it is made; None: where the seeds lie. Each row's key is made where the seeds lie: for those
    on the host a GPU has half as many kernels to launch.
    """
    count = math.prod(shape)
    key = mix(mix(seeds) + GOLDEN * steps).to(device or seeds.device)
    pairs = torch.arange((count + 1) // 2, device=key.device)
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
