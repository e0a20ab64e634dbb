"""What a straight line already says about the next state; the network learns the rest.

change ≈ W · [velocity, state, act, 1], fitted in closed form to the training episodes (ridge regression).
Robots under position control follow it closely, and a network would need thousands of updates to find it.

S state size, A action size; everything in model units.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from scd_world.stats import Stats

SMALLEST_CHANGE = 1e-3  # of a dimension's range: a state that never changes divides nothing
SMALLEST_REST = 0.1  # of the usual change: how exactly the network is asked to know what is nearly linear


class LinearDynamics(nn.Module):
    class Output(NamedTuple):
        state: Tensor  # (…, S) where the straight line leads
        features: Tensor  # (…, 2·S) velocity and expected change, in units of the usual change

    def __init__(self, stats: Stats) -> None:
        super().__init__()
        self.register_buffer("weight", stats.linear.clone(), persistent=False)  # (S, 2·S + A + 1)
        self.register_buffer("change", stats.state_change.clamp_min(SMALLEST_CHANGE), persistent=False)
        self.register_buffer(
            "rest", self.change * stats.linear_rest.clamp_min(SMALLEST_REST), persistent=False
        )

    def forward(self, before: Tensor, state: Tensor, act: Tensor) -> Output:
        """State one frame earlier, state (…, S), and the action (…, A) taken there."""
        inputs = linear_inputs(before, state, act, self.change)
        expected = inputs @ self.weight.T
        velocity = inputs[..., : state.shape[-1]]
        return self.Output(state + self.change * expected, torch.cat([velocity, expected], dim=-1))


def linear_inputs(before: Tensor, state: Tensor, act: Tensor, change: Tensor) -> Tensor:
    """[velocity in units of the usual change, state, action, 1], (…, 2·S + A + 1)."""
    one = torch.ones_like(act[..., :1])
    return torch.cat([(state - before) / change, state, act, one], dim=-1)


def fit_linear(
    before: Tensor, state: Tensor, act: Tensor, after: Tensor, state_change: Tensor
) -> tuple[Tensor, Tensor]:
    """Ridge regression over R recorded transitions: weight (S, 2·S + A + 1), and what it leaves, (S,).

    The second is the root mean square of the error, in units of the usual change.
    """
    change = state_change.clamp_min(SMALLEST_CHANGE)
    x = linear_inputs(before, state, act, change).double()
    y = ((after - state) / change).double()
    ridge = 1e-5 * (len(x) + 1) * torch.eye(x.shape[-1], dtype=torch.float64)
    weight = torch.linalg.solve(x.T @ x + ridge, x.T @ y)
    if len(x) == 0:  # nothing was seen to move: no line, and everything left
        return weight.T.float().contiguous(), torch.ones_like(state_change)
    rest = (x @ weight - y).square().mean(0).sqrt()
    return weight.T.float().contiguous(), rest.float()
