"""Trains the prediction of reward and success (`StateDynamics.predict_outcome`), after the dynamics.

A success is one step in hundreds, so half of each batch is drawn where successes are near, and weighs less
for it: probabilities stay calibrated. In full precision: trained in bf16, PushT's reward was 1 % too high.

N recorded steps, B of them at a time.
"""

from __future__ import annotations

from collections.abc import Generator

import torch
import torch.nn.functional as F
from torch import Tensor

from scd_world.optim.pretraining import PretrainStage
from scd_world.optim.schedule import lr_schedule
from scd_world.prior.config import OutcomePretrainConfig
from scd_world.prior.dynamics import StateDynamics
from scd_world.robot_data.trajectories import StateTrajectories

NEAR = 0.15  # share of the steps, those of the highest rewards, that count as near a success
SUCCESS = 5.0  # weight of a success's error beside a reward's: successes are rare
CHUNK = 8192


def fit_outcome(
    dynamics: StateDynamics,
    recorded: StateTrajectories,
    config: OutcomePretrainConfig,
    seed: int,
    stage: PretrainStage | None = None,
) -> Generator[Tensor]:
    """Trains `dynamics.outcome_net` in place; yields the loss of each update, then leaves the averaged
    weights."""
    row, _ = recorded.sequences(1)
    if dynamics.outcome_net is None or not len(row):
        return
    generator = torch.Generator().manual_seed(seed)
    after, reward, success = (
        predict_next_states(dynamics, recorded, row),
        recorded.reward[row],
        recorded.success[row],
    )
    near = near_success_mask(reward, success)
    near_rows = near.nonzero()[:, 0].cpu()
    # Half from everywhere, half from near: how often a step is drawn, against how often it happened.
    often = 0.5 + 0.5 * near / near.float().mean()
    half = config.batch_size // 2

    def loss(progress: float) -> Tensor:
        anywhere = torch.randint(len(row), (half,), generator=generator)
        close = near_rows[torch.randint(len(near_rows), (half,), generator=generator)]
        batch = torch.cat([anywhere, close]).to(row.device)
        return outcome_loss(dynamics, after[batch], reward[batch], success[batch], 1 / often[batch])

    stage, steps = stage or PretrainStage(), config.steps
    optimizer = torch.optim.AdamW(
        dynamics.outcome_net.parameters(), betas=(0.9, 0.99), weight_decay=0.0, fused=True
    )
    stage.start(dynamics.outcome_net, [(optimizer, config.lr)], generator, ema=0.995)
    yield from stage.run(steps, lambda progress: lr_schedule(progress, 100 / steps, 0.6, 0.01), loss)


def near_success_mask(reward: Tensor, success: Tensor) -> Tensor:
    """(N,) bool: a success, or a reward among the highest NEAR; all, where nothing stands out.

    The lowest reward is never among the highest: where most steps have it, the quantile is that one."""
    high = torch.quantile(reward[:: 1 + len(reward) // 1_000_000], 1 - NEAR)
    near = (success > 0) | ((reward >= high) & (reward > reward.min()))
    return near if near.any() else torch.ones_like(near)


@torch.no_grad()
def predict_next_states(dynamics: StateDynamics, recorded: StateTrajectories, row: Tensor) -> Tensor:
    """(N, S): where the dynamics predict that each step leads; single steps, since drift would spoil them."""
    prev, state, action = recorded.prev, recorded.state, recorded.action
    return torch.cat(
        [dynamics.predict_next(prev[now], state[now], action[now]).state for now in row.split(CHUNK)]
    )


def outcome_loss(
    dynamics: StateDynamics, after: Tensor, reward: Tensor, success: Tensor, weight: Tensor
) -> Tensor:
    """Weighted means over states (B, S): square error of the reward, cross entropy of the success."""
    predicted, logit = dynamics.predict_outcome(after)
    unlikely = F.binary_cross_entropy_with_logits(logit, success, reduction="none")
    return (weight * ((predicted - reward).square() + SUCCESS * unlikely)).sum() / weight.sum()
