"""Ridge regression of how a robot's state changes: closed-form fits that need recorded numbers alone."""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_CHANGE = 1e-3  # of a dimension's range: a state that never changes divides nothing
LITTLE = 1e-5  # per row: what keeps a regression solvable
SMALLEST_RESIDUAL = 0.1  # of the usual change: how exactly the network is asked to know what is nearly linear


def linear_inputs(prev: Tensor, state: Tensor, action: Tensor, change: Tensor) -> Tensor:
    """[velocity in units of the usual change, state, action, action before, 1], (…, 2·S + 2·A + 1)."""
    was, did = prev.tensor_split([state.shape[-1]], dim=-1)
    one = torch.ones_like(action[..., :1])
    return torch.cat([(state - was) / change, state, action, did, one], dim=-1)


def fit_hold_action(
    prev: Tensor, state: Tensor, action: Tensor, after: Tensor, state_change: Tensor
) -> Tensor:
    """(A, S + 1): the action that keeps a robot at rest where it is, as a linear model of the state.

    Under position control that is its own place, under velocity control zero. It stands for the action
    before an episode's first. What moves by other laws than a line's has little say in it.
    """
    (S, A), change = (state.shape[-1], action.shape[-1]), state_change.clamp_min(SMALLEST_CHANGE)
    nothing = torch.cat([prev[..., :S], torch.zeros_like(action)], dim=-1)  # of it too little is known here
    weight, rest = ridge(linear_inputs(nothing, state, action, change), (after - state) / change)
    weight = weight / rest.clamp_min(SMALLEST_RESIDUAL / 10)[:, None]
    expects = torch.cat([weight[:, S : 2 * S], weight[:, -1:]], dim=1)  # change, from rest and no action
    return -(torch.linalg.pinv(weight[:, 2 * S : 2 * S + A], rtol=0.1) @ expects).float()


def ridge(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """y (R, m) ≈ x (R, n) · Wᵀ: the weight (m, n), and the root mean square of what it leaves (m,)."""
    x, y = x.double(), y.double()
    little = LITTLE * (len(x) + 1) * torch.eye(x.shape[-1], dtype=torch.float64)
    weight = torch.linalg.solve(x.T @ x + little, x.T @ y)
    if len(x) == 0:  # nothing was seen to move: no line, and everything left
        return weight.T, torch.ones_like(y[:0].sum(0))
    return weight.T, (x @ weight - y).square().mean(0).sqrt()
