"""FAR: in training the history is as noisy as what is drawn, each frame at its own level; one in ten clean.

Clean context frames have a time of their own (-1), which is what stepping uses (Gu et al., 2025).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from scd_world.baselines.causal_dit import CausalDiT
from scd_world.model.flow import interpolate, logit_normal
from scd_world.model.noise import Noise, NoiseSampler
from scd_world.robot_data.clip import Clip

CLEAN_SHARE, CLEAN_TIME = 0.1, -1.0


class FAR(CausalDiT):
    def extra_noise(self, clip: Clip, sampler: NoiseSampler) -> Mapping[str, Tensor]:
        B, T = clip.action.shape[:2]
        return {
            "history_t": sampler.normal(B, T),
            "history_clean": sampler.uniform(B, T),
            "history_x": sampler.normal(B, T, *clip.obs.shape[2:]),
        }

    def show_history(self, obs: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        assert noise.history_t is not None
        assert noise.history_x is not None
        assert noise.history_clean is not None
        t = logit_normal(noise.history_t, mean=0.0, std=1.0)
        clean = noise.history_clean < CLEAN_SHARE
        noisy = interpolate(obs, noise.history_x, t)
        return torch.where(clean[:, :, None, None, None], obs, noisy), t.masked_fill(clean, CLEAN_TIME)

    def remembered(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        return obs, obs.new_full((len(obs),), CLEAN_TIME)
