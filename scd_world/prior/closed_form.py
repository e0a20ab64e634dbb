"""What of a state prior is fitted in closed form: the linear model and the constraints, in seconds.

R recorded steps, F recorded rows, S state, A action; everything in model units.
"""

from __future__ import annotations

from torch import Tensor

from scd_world.prior.state_prior import PretrainedStatePrior


def fit_closed_form(
    prior: PretrainedStatePrior, transitions: tuple[Tensor, Tensor, Tensor, Tensor], state: Tensor
) -> None:
    """Fits linear dynamics to transitions (previous state and action (R, S + A), state (R, S), action (R, A),
    next state (R, S)), and constraints to all recorded states (F, S)."""
    prior.dynamics.linear.fit(*transitions)
    prior.dynamics.constraints.fit(state)
