"""Teaches the dynamics (`dynamics.py`) from the recorded states alone, before the world model sees a picture.

Single steps first, as many at a time as can be: where things go is learnt soonest from what was recorded.
Then it is unrolled: what it said is what it goes on from, and it learns not to drift. What a state is worth
is learnt after that (`fit_outcome.py`).

F recorded rows, E episodes, B sequences, U steps of an unroll.
"""

from __future__ import annotations

from collections.abc import Generator

import torch
import torch.nn.functional as F
from torch import Tensor

from scd_world.optim.optimizer import muon_and_adamw
from scd_world.optim.schedule import lr_schedule
from scd_world.prior.config import DynamicsPretrainConfig
from scd_world.prior.dynamics import StateDynamics
from scd_world.prior.pretraining import PretrainStage
from scd_world.prior.trajectories import StateTrajectories


def fit_dynamics(
    dynamics: StateDynamics,
    recorded: StateTrajectories,
    config: DynamicsPretrainConfig,
    seed: int,
    bf16: bool = False,
    stage: PretrainStage | None = None,
) -> Generator[Tensor]:
    """Teaches `dynamics` in place; yields the loss of each update, then leaves the averaged weights in it.

    `config.steps` updates, or as many as the stage's time allows.
    """
    generator = torch.Generator().manual_seed(seed)
    unroll, singles = config.rollout_length, recorded.sequences(1)
    while not len((sequences := recorded.sequences(unroll))[0]) and unroll > 1:
        unroll //= 2  # short episodes
    if dynamics.residual_net is None or not len(sequences[0]):
        return

    def loss(progress: float) -> Tensor:
        rows, steps = (singles, 1) if progress <= config.single_step_share else (sequences, unroll)
        size = (config.batch_size * unroll // steps, recorded.state.shape[-1])
        level = config.init_noise * torch.rand(size[0], 1, generator=generator)
        shake = (level * torch.randn(size, generator=generator)).to(
            recorded.state
        ) * dynamics.linear.delta_scale
        lot = torch.randint(len(rows[0]), (size[0],), generator=generator)
        row, last = (of[lot.to(of.device)] for of in rows)
        return rollout_loss(dynamics, recorded, row, last, shake, steps, bf16)

    stage = stage or PretrainStage()
    inner = [p for p in dynamics.residual_net.layers.parameters() if p.ndim == 2]
    optimizers = muon_and_adamw(dynamics.residual_net, inner, config.muon_lr, config.lr, beta2=0.98)
    stage.start(dynamics.residual_net, optimizers, generator, ema=0.999)
    yield from stage.run(config.steps, lambda progress: lr_schedule(progress, 0.02, 0.5, 0.01), loss)


def rollout_loss(
    dynamics: StateDynamics,
    recorded: StateTrajectories,
    row: Tensor,
    last: Tensor,
    shake: Tensor,
    steps: int,
    bf16: bool = False,
) -> Tensor:
    """Mean over U steps from the recorded state at row (B,), shaken by (B, S), under the recorded actions.

    What is shaken must find back: a hand that is imagined inside a block is pushed out of it again.
    """
    state, prev, loss = recorded.state[row] + shake, recorded.prev[row], 0.0
    prev = prev + F.pad(shake, (0, prev.shape[-1] - shake.shape[-1]))
    for i in range(steps):
        action = recorded.action[row + i]
        after = dynamics.predict_next(prev, state, action, bf16).state
        known = (row + i < last)[:, None]
        loss = loss + step_loss(dynamics, known * (after - recorded.state[torch.minimum(row + i + 1, last)]))
        prev, state = torch.cat([state, action], dim=-1), after
    return loss / steps


def step_loss(dynamics: StateDynamics, error: Tensor) -> Tensor:
    """Of errors of the next state (B, S) in model units, the mean. As in the world model's loss: mostly
    absolute, so that what is not pushed stays still."""
    error = error / dynamics.linear.residual_scale
    return F.smooth_l1_loss(error, torch.zeros_like(error), beta=0.1)
