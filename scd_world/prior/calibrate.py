"""Calibrates the ensemble's uncertainty: how far rollouts of the dynamics are from recordings, at each
spread."""

from __future__ import annotations

import torch
from scipy.optimize import isotonic_regression
from torch import Tensor

from scd_world.prior.dynamics import StateDynamics
from scd_world.prior.uncertainty import FLOOR, KNOTS, EnsembleUncertainty
from scd_world.robot_data.trajectories import StateTrajectories

# The steps in the order of their spread are cut here: tenths, and the last one finer, for there errors are.
CUTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975, 0.9875)


@torch.no_grad()
def calibrate_uncertainty(
    uncertainty: EnsembleUncertainty,
    dynamics: StateDynamics,
    recorded: StateTrajectories,
    seed: int,
    windows: int = 512,
    steps: int = 64,
) -> int:
    """Sets the calibration curve to the mean error at each of `KNOTS` spreads, over all steps of `windows`
    rollouts.

    recorded: what the dynamics has not learnt from, or it is surer of itself than it may be. Means of errors,
    not of their logarithms: the prediction is the mean error, to which few large ones add most. They rise
    with the spread (isotonic regression). Gives the steps of an rollout: fewer where episodes are short, 0
    where they are too short to rollout at all, and the curve stays as it is.
    """
    while not len((sequences := recorded.sequences(steps + 1))[0]) and steps > 1:
        steps //= 2  # short episodes
    if not len(sequences[0]):
        return 0
    g = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(sequences[0]), (windows,), generator=g)
    row, _ = (rows[chosen.to(rows.device)] for rows in sequences)
    spread, error = (
        x.flatten().double().cpu() for x in rollout_errors(uncertainty, dynamics, recorded, row, steps)
    )
    parts = spread.argsort().tensor_split([int(cut * len(spread)) for cut in CUTS])
    assert len(parts) == KNOTS
    knots = torch.stack([(spread[part] + FLOOR).log().mean() for part in parts])
    errors = torch.stack([error[part].mean() for part in parts])
    rising = isotonic_regression(errors.numpy(), weights=[len(part) for part in parts]).x
    uncertainty.calibration_curve.copy_(torch.stack([knots, torch.from_numpy(rising).clamp_min(1e-6).log()]))
    return steps


def rollout_errors(
    uncertainty: EnsembleUncertainty,
    dynamics: StateDynamics,
    recorded: StateTrajectories,
    row: Tensor,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Spread and true error (N, steps), model units, of rollouts from the recorded states at row (N,)."""
    prev, state = recorded.prev[row], recorded.state[row]
    copies, spreads, errors = uncertainty.init_ensemble(prev, state), [], []
    for i in range(steps):
        action, age = recorded.action[row + i], torch.full_like(row, i)
        prev, state = torch.cat([state, action], dim=-1), dynamics.predict_next(prev, state, action).state
        copies = uncertainty.step_ensemble(dynamics, copies, action, age)
        spreads.append(uncertainty.spread(copies))
        errors.append((state - recorded.state[row + i + 1]).square().mean(-1).sqrt())
    return torch.stack(spreads, dim=1), torch.stack(errors, dim=1)
