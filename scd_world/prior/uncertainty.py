"""Ensemble uncertainty: members of the dynamics go on beside an imagined state, each perturbed a little.

Free motion forgives a perturbation; a contact that is only just made, or missed, drives the members apart, as
it drives the imagination from what would really have happened. As in weather forecasts, how far they have
spread since the last observed frame says how much to trust; a rising curve, measured on recordings from which
the dynamics have not learnt, turns the spread into the error to expect. It takes no pixel and no further
network.

B rows, M members, S state, A action.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scd_world.prior.dynamics import StateDynamics
from scd_world.robot_data.trajectories import StateTrajectories

MEMBERS = 16
PERTURBATION_STD = 0.02  # deviation per step, in units of the state's usual change
PERIOD = 64  # steps after which the perturbations repeat; the same for every row: none depends on another
FLOOR = 1e-3  # model units: spreads below it are the same
KNOTS = 13
KNOWN = torch.linspace(math.log(FLOOR), 0.0, KNOTS)  # the knots before any are measured
# The steps in the order of their spread are cut here: tenths, and the last one finer, for there errors are.
CUTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975, 0.9875)
BEYOND = 0.5  # slope past the last knot: spreads may grow for ever, errors end where the robot does


class EnsembleUncertainty(nn.Module):
    perturbations: Tensor  # (PERIOD, M, S)
    calibration_curve: Tensor  # (2, KNOTS)

    def __init__(self, size: int) -> None:
        super().__init__()
        self.state_size, g = size, torch.Generator().manual_seed(0)
        self.register_buffer(
            "perturbations", torch.randn(PERIOD, MEMBERS, size, generator=g), persistent=False
        )
        # log spread at the knots, and log error there; until it is fitted, one is taken for the other
        self.register_buffer("calibration_curve", torch.stack([KNOWN, KNOWN]))

    def init_ensemble(self, prev: Tensor, state: Tensor) -> Tensor:
        """Starts (B, M, 2·S + A) at a known state (B, S) and of what was a frame earlier (B, S + A): all
        the same."""
        return torch.cat([prev, state], dim=-1)[:, None].expand(-1, MEMBERS, -1)

    def step_ensemble(
        self, dynamics: StateDynamics, ensemble: Tensor, action: Tensor, steps_since_observed: Tensor
    ) -> Tensor:
        """Moves the ensemble one step on, under the action (B, A). steps_since_observed (B,) int."""
        action = action[:, None].expand(-1, MEMBERS, -1)
        prev, state = ensemble.tensor_split([ensemble.shape[-1] - self.state_size], dim=-1)
        after = dynamics.predict_next(prev, state, action).state.float()
        perturbed = (
            after
            + PERTURBATION_STD
            * dynamics.linear.delta_scale
            * self.perturbations[steps_since_observed % PERIOD]
        )
        return torch.cat([state, action, perturbed], dim=-1)

    def spread(self, ensemble: Tensor) -> Tensor:
        """(B,) root mean square over members and dimensions, model units."""
        state = ensemble[..., ensemble.shape[-1] - self.state_size :]
        return (state - state.mean(1, keepdim=True)).square().mean((1, 2)).sqrt()

    def expected_error(self, ensemble: Tensor) -> Tensor:
        """(B,) the error to expect, root mean square over the state's dimensions, as a share of their
        ranges."""
        return self.calibrated_error(self.spread(ensemble)) / 2  # a range is 2 model units

    def calibrated_error(self, spread: Tensor) -> Tensor:
        """The error to expect of a spread, model units (…): the curve, straight between its knots."""
        x, (knots, errors) = (spread + FLOOR).log(), self.calibration_curve
        right = torch.bucketize(x, knots).clamp(1, KNOTS - 1)
        left = right - 1
        way = ((x - knots[left]) / (knots[right] - knots[left]).clamp_min(1e-6)).clamp(0, 1)
        inside = torch.lerp(errors[left], errors[right], way)
        return (inside + BEYOND * (x - knots[-1]).clamp_min(0)).exp()


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
    from scipy.optimize import isotonic_regression  # at the end of a training: no step needs it

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
