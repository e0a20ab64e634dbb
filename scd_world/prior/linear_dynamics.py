"""What a straight line already says about the next state; the network learns the rest.

change ≈ W · [velocity, state, act, act before, 1], fitted in closed form to the training episodes (ridge
regression). Robots under position control follow it closely, and a network would need thousands of updates to
find it. Why the action before: two places say how fast something was on average, and with what it was
told meanwhile that gives how fast it is now.

S state size, A action size; everything in model units.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from scd_world.robot_data.linear_fit import SMALLEST_CHANGE, SMALLEST_REST, linear_inputs, ridge
from scd_world.robot_data.normalizer import Stats, at_rest


class LinearDynamics(nn.Module):
    class Output(NamedTuple):
        state: Tensor  # (…, S) where the straight line leads
        features: Tensor  # (…, 2·S) velocity and expected change, in units of the usual change

    def __init__(self, stats: Stats) -> None:
        super().__init__()
        self.register_buffer("weight", stats.linear.clone(), persistent=False)  # (S, 2·S + 2·A + 1)
        self.register_buffer("hold", stats.hold.clone(), persistent=False)
        self.register_buffer("change", stats.state_change.clamp_min(SMALLEST_CHANGE), persistent=False)
        self.register_buffer(
            "rest", self.change * stats.linear_rest.clamp_min(SMALLEST_REST), persistent=False
        )

    def forward(self, before: Tensor, state: Tensor, act: Tensor) -> Output:
        """State and action one frame earlier (…, S + A), state (…, S), and the action (…, A) taken there."""
        inputs = linear_inputs(before, state, act, self.change)
        expected = inputs @ self.weight.T
        velocity = inputs[..., : state.shape[-1]]
        return self.Output(state + self.change * expected, torch.cat([velocity, expected], dim=-1))

    def at_rest(self, state: Tensor) -> Tensor:
        """(…, S + A): what was one frame earlier, if nothing has moved yet."""
        return at_rest(state, self.hold)


def fit_linear(
    before: Tensor, state: Tensor, act: Tensor, after: Tensor, state_change: Tensor
) -> tuple[Tensor, Tensor]:
    """Ridge regression over R recorded transitions: weight (S, 2·S + 2·A + 1), and what it leaves, (S,).

    The second is the root mean square of the error, in units of the usual change.
    """
    change = state_change.clamp_min(SMALLEST_CHANGE)
    weight, rest = ridge(linear_inputs(before, state, act, change), (after - state) / change)
    return weight.float().contiguous(), rest.float()
