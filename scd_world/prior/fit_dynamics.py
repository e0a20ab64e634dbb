"""Trains the dynamics (`dynamics.py`) on recorded states alone, before the world model sees an image.

Single steps first, as many at a time as can be: where things go is learnt soonest from what was recorded.
Then it is rolled out: it goes on from its own predictions, and learns not to drift. Reward and success are
learnt after that (`fit_outcome.py`).

F recorded rows, E episodes, B sequences, U steps of an rollout.
"""

from __future__ import annotations

from collections.abc import Generator

import torch
import torch.nn.functional as F
from torch import Tensor

from scd_world.optim.optimizer import muon_and_adamw
from scd_world.optim.pretraining import PretrainStage
from scd_world.optim.schedule import lr_schedule
from scd_world.prior.config import DynamicsPretrainConfig
from scd_world.prior.dynamics import StateDynamics
from scd_world.prior.fourier_mlp import FourierMLP
from scd_world.robot_data.trajectories import StateTrajectories


def fit_dynamics(
    dynamics: StateDynamics,
    recorded: StateTrajectories,
    config: DynamicsPretrainConfig,
    seed: int,
    bf16: bool = False,
    stage: PretrainStage | None = None,
) -> Generator[Tensor]:
    """Trains `dynamics` in place; yields the loss of each update, then leaves the averaged weights in it.

    `config.steps` updates, or as many as the stage's time allows.
    """
    generator = torch.Generator().manual_seed(seed)
    length, singles = config.rollout_length, recorded.sequences(1)
    while not len((sequences := recorded.sequences(length))[0]) and length > 1:
        length //= 2  # short episodes
    network = dynamics.trained
    if network is None or not len(sequences[0]):
        return
    network.requires_grad_(True)  # joints are held but for here

    def loss(progress: float) -> Tensor:
        rows, steps = (singles, 1) if progress <= config.single_step_share else (sequences, length)
        size = (config.batch_size * length // steps, recorded.state.shape[-1])
        level = config.init_noise * torch.rand(size[0], 1, generator=generator)
        perturbation = (level * torch.randn(size, generator=generator)).to(
            recorded.state
        ) * dynamics.linear.delta_scale
        chosen = torch.randint(len(rows[0]), (size[0],), generator=generator)
        row, last = (of[chosen.to(of.device)] for of in rows)
        return rollout_loss(dynamics, recorded, row, last, perturbation, steps, bf16)

    stage = stage or PretrainStage()
    layers = [part.layers for part in network.modules() if isinstance(part, FourierMLP)]
    inner = [p for each in layers for p in each.parameters() if p.ndim == 2]
    optimizers = muon_and_adamw(network, inner, config.muon_lr, config.lr, beta2=0.98)
    stage.start(network, optimizers, generator, ema=0.999)
    yield from stage.run(config.steps, lambda progress: lr_schedule(progress, 0.02, 0.5, 0.01), loss)


def rollout_loss(
    dynamics: StateDynamics,
    recorded: StateTrajectories,
    row: Tensor,
    last: Tensor,
    perturbation: Tensor,
    steps: int,
    bf16: bool = False,
) -> Tensor:
    """Mean over U steps from the recorded state at row (B,), perturbed by (B, S), under the recorded actions.

    What is perturbed must find back: a hand that is imagined inside a block is pushed out of it again.
    """
    state, prev = recorded.state[row] + perturbation, recorded.prev[row]
    loss = state.new_zeros(())
    prev = prev + F.pad(perturbation, (0, prev.shape[-1] - perturbation.shape[-1]))
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
