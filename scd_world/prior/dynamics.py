"""The dynamics of the state alone: a linear model, and a small network on top of it.

Robots under position control follow a linear model closely, and what they push follows from where it is and
where they go: neither needs a pixel, both are learnt from thousands of times more steps than images allow
(`fit_dynamics.py`). What is not in the recorded state, the world model's heads add.

S state size, A action size; everything in model units.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from scd_world.model.layers import zero_init
from scd_world.model.prior import PriorPrediction
from scd_world.prior.constraints import StateConstraints
from scd_world.prior.linear_dynamics import LinearDynamics
from scd_world.robot_data.normalizer import Normalizer
from scd_world.utils.precision import full_precision, half_precision


class Transition(NamedTuple):
    """Where a step leads."""

    state: Tensor  # (…, S) the next state
    delta_features: Tensor  # (…, 2·S) velocity and expected change, in units of the usual change


class StateDynamics(nn.Module):
    def __init__(self, normalizer: Normalizer, width: int, layers: int) -> None:
        """With no `layers` the linear model is all there is."""
        super().__init__()
        self.linear, self.constraints = LinearDynamics(normalizer), StateConstraints(normalizer)
        S = len(normalizer.state_low)
        learns = bool(S and layers)
        inputs = 3 * S + 2 * len(normalizer.action_low)
        self.residual_net = FourierMLP(inputs, S, width, layers) if learns else None
        # Reward and success have a network of their own, or the few successes drown.
        self.outcome_net = FourierMLP(S, 2, width, max(1, layers - 1)) if learns else None

    def forward(self, prev: Tensor, state: Tensor, action: Tensor) -> PriorPrediction:
        """Predicts a step. prev (…, S + A): state and action one frame earlier; state (…, S), action (…,
        A)."""
        step = self.predict_next(prev, state, action)
        return PriorPrediction(*step, *self.predict_outcome(step.state))

    def predict_next(self, prev: Tensor, state: Tensor, action: Tensor, bf16: bool = False) -> Transition:
        """Predicts the next state. bf16: between the network's first layer and its last; to learn, that is
        exact enough."""
        linear = self.linear(prev, state, action)
        if self.residual_net is None:
            return Transition(self.project(linear.state), linear.delta_features)
        with full_precision(state):
            # asinh: most velocities are small, and some are twenty times the usual.
            turn = prev[..., state.shape[-1] :] - action
            inputs = torch.cat([linear.delta_features.asinh(), state, action, turn], dim=-1)
            residual = self.residual_net(inputs.float(), bf16)
        after = self.project(linear.state + self.linear.residual_scale * residual)
        # Detached: the prior learns where things go, not what draws them well.
        expected = ((after - state) / self.linear.delta_scale).detach()
        velocity = linear.delta_features[..., : state.shape[-1]]
        return Transition(after, torch.cat([velocity, expected], dim=-1))

    def project(self, state: Tensor) -> Tensor:
        """Gives the state (…, S) that obeys what all recordings obeyed (`constraints.py`)."""
        with full_precision(state):
            return self.constraints(state.float())

    def predict_outcome(self, after: Tensor) -> tuple[Tensor, Tensor]:
        """Predicts reward in model units and success as a logit, (…) each, of a step that leads to a
        state."""
        if self.outcome_net is None:
            nothing = after.new_zeros(after.shape[:-1])
            return nothing, nothing
        with full_precision(after):
            reward, success = self.outcome_net(after.float()).unbind(-1)
        return reward, success


class FourierMLP(nn.Module):
    """Residual layers on learnt Fourier features: contact is a matter of half a pixel between two things."""

    def __init__(self, size: int, out: int, width: int, layers: int) -> None:
        super().__init__()
        self.fourier = nn.Linear(size, width)
        nn.init.normal_(self.fourier.weight, std=0.5)
        nn.init.uniform_(self.fourier.bias, -torch.pi, torch.pi)
        self.embed = nn.Linear(size + width, width)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 2 * width),
                nn.GELU(),
                zero_init(nn.Linear(2 * width, width)),
            )
            for _ in range(layers)
        )
        self.out = nn.Sequential(nn.LayerNorm(width), zero_init(nn.Linear(width, out)))

    def forward(self, x: Tensor, bf16: bool = False) -> Tensor:
        h = self.embed(torch.cat([x, self.fourier(x).sin()], dim=-1))
        with half_precision(x, bf16):
            for layer in self.layers:
                h = h + layer(h)
        return self.out(h)
