"""What a linear model already says about the next state; the network learns what is left.

change ≈ W · [velocity, state, action, action before, 1], fitted in closed form to the training episodes
(ridge regression). Robots under position control follow it closely, and a network would need thousands of
updates to find it. Why the action before: two places say how fast something was on average, and with the
action that it had meanwhile that gives how fast it is now. A joint has a law of its own (`joint_law.py`).

S state size, A action size; everything in model units.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from scd_world.model.prior import SMALLEST_CHANGE
from scd_world.robot_data.joint_law import fit_joint_laws
from scd_world.robot_data.linear_fit import SMALLEST_RESIDUAL, linear_inputs, ridge
from scd_world.robot_data.normalizer import Normalizer


class LinearPrediction(NamedTuple):
    """What the linear model expects of a step."""

    state: Tensor  # (…, S) where it leads
    delta_features: Tensor  # (…, 2·S) velocity and expected change, in units of the usual change


class LinearDynamics(nn.Module):
    weight: Tensor  # (S, 2·S + 2·A + 1)
    residual: Tensor  # (S,) root mean square of what it leaves, in units of the usual change
    delta_scale: Tensor  # (S,) usual change per step

    def __init__(self, normalizer: Normalizer) -> None:
        """Nothing is known yet: the state stays. `fit` changes that."""
        super().__init__()
        S, A = len(normalizer.state_low), len(normalizer.action_low)
        self.register_buffer("weight", torch.zeros(S, 2 * S + 2 * A + 1))
        self.register_buffer("residual", torch.ones(S))
        scale = normalizer.state_delta_rms.clamp_min(SMALLEST_CHANGE)
        self.register_buffer("delta_scale", scale, persistent=False)
        self.joints, self.commands = normalizer.joints.cpu(), normalizer.commands.cpu()

    @property
    def residual_scale(self) -> Tensor:
        """(S,) unit of what the networks add to it."""
        return self.delta_scale * self.residual.clamp_min(SMALLEST_RESIDUAL)

    def forward(self, prev: Tensor, state: Tensor, action: Tensor) -> LinearPrediction:
        """Predicts a step. prev (…, S + A): state and action one frame earlier; state (…, S), action (…,
        A)."""
        inputs = linear_inputs(prev, state, action, self.delta_scale)
        expected = inputs @ self.weight.T
        velocity = inputs[..., : state.shape[-1]]
        return LinearPrediction(state + self.delta_scale * expected, torch.cat([velocity, expected], dim=-1))

    @torch.no_grad()
    def fit(self, prev: Tensor, state: Tensor, action: Tensor, after: Tensor) -> None:
        """Fits it to R recorded transitions, in closed form; after (R, S): the next states."""
        scale = self.delta_scale.to(state)
        inputs, change = linear_inputs(prev, state, action, scale), (after - state) / scale
        weight, residual = ridge(inputs, change)
        if len(self.joints) and len(state):
            weight[self.joints] = fit_joint_laws(inputs, change, self.joints, self.commands)
            residual = (inputs.double() @ weight.T - change.double()).square().mean(0).sqrt()
        self.weight.copy_(weight)
        self.residual.copy_(residual)
