"""The policy: a small network on the block's view, played anywhere.

B rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor
from view import FURTHEST, SIZE, BlockView, as_state

from scd_policies.policy import check_batch

WAVES = 128
SEEN = gymnasium.spaces.Box(-np.inf, np.inf, (SIZE,), np.float32)
ANSWERS = gymnasium.spaces.Box(-FURTHEST, FURTHEST, (2,), np.float32)


class FourierFeatures(BaseFeaturesExtractor):
    """Scales what the policy sees by what the recordings showed; random waves beside it, because contact is a
    matter of few pixels, and a small network alone smooths that out. Nothing here learns."""

    mean: Tensor  # (F,)
    std: Tensor  # (F,)
    waves: Tensor  # (WAVES, F)
    phase: Tensor  # (WAVES,)

    def __init__(self, observation_space: gymnasium.Space) -> None:
        assert isinstance(observation_space, gymnasium.spaces.Box)
        (F,) = observation_space.shape
        super().__init__(observation_space, F + WAVES)
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("mean", torch.zeros(F))
        self.register_buffer("std", torch.ones(F))
        self.register_buffer("waves", torch.randn(WAVES, F, generator=generator) / 2)
        self.register_buffer("phase", torch.rand(WAVES, generator=generator) * 2 * torch.pi)

    def forward(self, seen: Tensor) -> Tensor:
        scaled = (seen - self.mean) / self.std
        return torch.cat([scaled, (scaled @ self.waves.T + self.phase).sin()], dim=-1)


class ViewPolicy:
    """Plays an actor as any policy of the project: its likeliest answer, in any environment of PushT."""

    def __init__(self, actor: BasePolicy, view: BlockView) -> None:
        self.actor, self.view = actor, view

    def reset(self, seeds: Sequence[int]) -> None:
        """Starts B episodes; nothing is random."""
        self.last = np.full((len(seeds), 2), np.nan)

    def act(self, obs: dict[str, Any]) -> np.ndarray:
        """Gives raw actions (B, 2)."""
        check_batch(obs, len(self.last))
        state = as_state(obs)
        answer, _ = self.actor.predict(self.view.features(state, self.last), deterministic=True)
        self.last = self.view.action(state, answer)
        return self.last
