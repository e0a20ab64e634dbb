"""The policy: a small network on the block's view, cloned from recordings, and played anywhere.

N recorded steps, B rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
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


NET: dict[str, Any] = {
    "net_arch": {"pi": [256, 256], "vf": [128, 128]},
    "activation_fn": torch.nn.ReLU,
    "features_extractor_class": FourierFeatures,
}


class ViewPolicy:
    """Plays an actor as any policy of the project: its likeliest answer, in any environment of PushT."""

    def __init__(self, actor: ActorCriticPolicy, view: BlockView) -> None:
        self.actor, self.view = actor, view

    def reset(self, seeds: Sequence[int]) -> None:
        """Starts B episodes; nothing is random."""
        self.last = np.full((len(seeds), 2), np.nan)

    @torch.no_grad()
    def act(self, obs: dict[str, Any]) -> np.ndarray:
        """Gives raw actions (B, 2)."""
        check_batch(obs, len(self.last))
        state = as_state(obs)
        seen = torch.from_numpy(self.view.features(state, self.last))
        self.last = self.view.action(state, self.actor.get_distribution(seen).mode().numpy())
        return self.last


def clone(
    seen: np.ndarray, answer: np.ndarray, steps: int, batch_size: int = 256, seed: int = 0
) -> tuple[ActorCriticPolicy, float]:
    """Fits an actor's mean to recorded answers (N, 2) by what was seen (N, F); gives it, and the last loss.

    The mean absolute error is least at the median, which holds to one of two ways round a block where their
    mean would run into it.
    """
    torch.manual_seed(seed)
    actor, generator = (
        ActorCriticPolicy(SEEN, ANSWERS, lambda _: 0.0, **NET),
        torch.Generator().manual_seed(seed),
    )
    x, y = torch.from_numpy(seen), torch.from_numpy(answer)
    scale = actor.features_extractor
    assert isinstance(scale, FourierFeatures)
    scale.mean.copy_(x.mean(0))
    scale.std.copy_(x.std(0).clamp_min(1e-3))
    networks = [actor.mlp_extractor.policy_net, actor.action_net]
    optimizer = torch.optim.Adam([p for net in networks for p in net.parameters()], 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    smooth = float("nan")
    for _ in range(steps):
        rows = torch.randint(len(x), (batch_size,), generator=generator)
        loss = (networks[1](networks[0](scale(x[rows]))) - y[rows]).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        smooth = loss.item() if np.isnan(smooth) else 0.99 * smooth + 0.01 * loss.item()
    return actor, smooth
