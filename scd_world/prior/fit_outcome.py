"""Teaches what a state is worth (`Body.worth`) once the body knows where states lead.

A success is one step in hundreds, so half of each batch is drawn where successes are near, and weighs less
for it: probabilities stay calibrated. In full precision: taught in bf16, PushT's reward was 1 % too high.

N recorded steps, B of them at a time.
"""

from __future__ import annotations

from collections.abc import Generator

import torch
import torch.nn.functional as F
from torch import Tensor

from scd_world.optim.schedule import course
from scd_world.prior.config import BodyConfig
from scd_world.prior.dynamics import Body
from scd_world.prior.pretraining import Lesson
from scd_world.prior.trajectories import Recorded

NEAR = 0.15  # share of the steps, those of the highest rewards, that count as near a success
SUCCESS = 5.0  # weight of a success's error beside a reward's: successes are rare
CHUNK = 8192


def fit_outcome(
    body: Body, recorded: Recorded, config: BodyConfig, seed: int, lesson: Lesson | None = None
) -> Generator[Tensor]:
    """Teaches `body.outcome` in place; yields the loss of each update, then leaves the averaged weights."""
    row, _ = recorded.sequences(1)
    if body.outcome is None or not len(row):
        return
    generator = torch.Generator().manual_seed(seed)
    after, reward, success = (
        next_states(body, recorded, row),
        recorded.rew[row],
        recorded.success[row],
    )
    near = near_success(reward, success)
    near_rows = near.nonzero()[:, 0].cpu()
    # Half from everywhere, half from near: how often a step is drawn, against how often it happened.
    often = 0.5 + 0.5 * near / near.float().mean()
    half = config.outcome_batch // 2

    def loss(progress: float) -> Tensor:
        lots = torch.randint(len(row), (half,), generator=generator)
        close = near_rows[torch.randint(len(near_rows), (half,), generator=generator)]
        lot = torch.cat([lots, close]).to(row.device)
        return outcome_loss(body, after[lot], reward[lot], success[lot], 1 / often[lot])

    lesson, steps = lesson or Lesson(), config.outcome_steps
    optimiser = torch.optim.AdamW(body.outcome.parameters(), betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    lesson.begin(body.outcome, [(optimiser, config.lr)], generator, ema=0.995)
    yield from lesson.teach(steps, lambda progress: course(progress, 100 / steps, 0.6, 0.01), loss)


def near_success(reward: Tensor, success: Tensor) -> Tensor:
    """(N,) bool: a success, or a reward among the highest NEAR; all, where nothing stands out.

    The lowest reward is never among the highest: where most steps have it, the quantile is that one."""
    high = torch.quantile(reward[:: 1 + len(reward) // 1_000_000], 1 - NEAR)
    near = (success > 0) | ((reward >= high) & (reward > reward.min()))
    return near if near.any() else torch.ones_like(near)


@torch.no_grad()
def next_states(body: Body, recorded: Recorded, row: Tensor) -> Tensor:
    """(N, S): where the body says that each step leads; single steps, since drift would spoil them."""
    before, state, act = recorded.before, recorded.state, recorded.act
    return torch.cat([body.move(before[now], state[now], act[now]).state for now in row.split(CHUNK)])


def outcome_loss(body: Body, after: Tensor, reward: Tensor, success: Tensor, weight: Tensor) -> Tensor:
    """Weighted means over states (B, S): square error of the reward, cross entropy of the success."""
    said, logit = body.worth(after)
    unlikely = F.binary_cross_entropy_with_logits(logit, success, reduction="none")
    return (weight * ((said - reward).square() + SUCCESS * unlikely)).sum() / weight.sum()
