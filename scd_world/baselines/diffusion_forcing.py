"""Diffusion forcing: each frame of the history at its own noise level, and slightly noisy when stepping.

A model that has seen all levels can be told that its own frames are not quite right (Chen et al., 2024).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from scd_world.baselines.causal_dit import CausalDiT
from scd_world.model.config import ModelConfig
from scd_world.model.flow import interpolate
from scd_world.model.noise import Noise, NoiseSampler
from scd_world.model.prior import StatePrior
from scd_world.robot_data.clip import Clip
from scd_world.robot_data.normalizer import Normalizer
from scd_world.robot_data.schema import DataSchema

LEVEL = 0.1  # of the history when stepping


class DiffusionForcing(CausalDiT):
    history_noise: Tensor  # (C, H, W)

    def __init__(
        self, config: ModelConfig, schema: DataSchema, normalizer: Normalizer, prior: StatePrior
    ) -> None:
        super().__init__(config, schema, normalizer, prior)
        # One fixed draw serves every frame: a step stays a function of its arguments.
        shape = schema.channels, schema.height, schema.width
        fixed = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        self.register_buffer("history_noise", fixed, persistent=False)

    def extra_noise(self, clip: Clip, sampler: NoiseSampler) -> Mapping[str, Tensor]:
        B, T = clip.action.shape[:2]
        return {"history_t": sampler.uniform(B, T), "history_x": sampler.normal(B, T, *clip.obs.shape[2:])}

    def show_history(self, obs: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        assert noise.history_t is not None
        assert noise.history_x is not None
        return interpolate(obs, noise.history_x, noise.history_t), noise.history_t

    def remembered(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        t = obs.new_full((len(obs),), LEVEL)
        return interpolate(obs, self.history_noise, t), t
