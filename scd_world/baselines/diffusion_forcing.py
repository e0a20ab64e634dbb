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
from scd_world.model.noise import Draw, Noise
from scd_world.robot_data.clip import Clip
from scd_world.robot_data.normalizer import Stats
from scd_world.robot_data.schema import DataSchema

LEVEL = 0.1  # of the history when stepping


class DiffusionForcing(CausalDiT):
    def __init__(self, config: ModelConfig, schema: DataSchema, stats: Stats) -> None:
        super().__init__(config, schema, stats)
        # One fixed draw serves every frame: a step stays a function of its arguments.
        shape = schema.channels, schema.height, schema.width
        fixed = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        self.register_buffer("past_noise", fixed, persistent=False)

    def draw_more(self, clip: Clip, draw: Draw) -> Mapping[str, Tensor]:
        B, T = clip.act.shape[:2]
        return {"past_t": draw.uniform(B, T), "past_x": draw.normal(B, T, *clip.obs.shape[2:])}

    def show_history(self, obs: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        return interpolate(obs, noise.past_x, noise.past_t), noise.past_t

    def remembered(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        t = obs.new_full((len(obs),), LEVEL)
        return interpolate(obs, self.past_noise, t), t
