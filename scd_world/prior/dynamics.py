"""What the body alone says about the next state: a straight line, and a small network on top of it.

Robots under position control follow a line closely, and what they push follows from where it is and where
they go: neither needs a pixel, both are learnt from thousands of times more steps than pictures allow
(`fit_body.py`). What is not in the recorded state, the world model's heads add.

S state size, A action size; everything in model units.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from scd_world.model.layers import zero
from scd_world.prior.constraints import Laws
from scd_world.prior.linear_dynamics import LinearDynamics
from scd_world.robot_data.normalizer import Stats
from scd_world.utils.precision import full_precision, half_precision


class Body(nn.Module):
    class Output(NamedTuple):
        state: Tensor  # (…, S) the next state
        features: Tensor  # (…, 2·S) velocity and expected change, in units of the usual change
        reward: Tensor  # (…,) model units
        success: Tensor  # (…,) logit

    def __init__(self, stats: Stats, width: int, layers: int) -> None:
        """With no `layers` the straight line is all there is."""
        super().__init__()
        self.line, self.laws = LinearDynamics(stats), Laws(stats)
        S = len(stats.state_low)
        learns = bool(S and layers)
        self.net = BodyNet(3 * S + 2 * len(stats.action_low), S, width, layers) if learns else None
        # What the next state is worth: a network of its own, or the few successes drown.
        self.outcome = BodyNet(S, 2, width, max(1, layers - 1)) if learns else None

    class Move(NamedTuple):
        state: Tensor  # (…, S) the next state
        features: Tensor  # (…, 2·S) velocity and expected change, in units of the usual change

    def forward(self, before: Tensor, state: Tensor, act: Tensor) -> Output:
        """State and action one frame earlier (…, S + A), state (…, S), and the action (…, A) taken there."""
        move = self.move(before, state, act)
        return self.Output(*move, *self.worth(move.state))

    def move(self, before: Tensor, state: Tensor, act: Tensor, bf16: bool = False) -> Move:
        """bf16: between the net's first layer and its last; to learn, that is exact enough."""
        line = self.line(before, state, act)
        if self.net is None:
            return self.Move(self.lawful(line.state), line.features)
        with full_precision(state):
            # asinh: most velocities are small, and some are twenty times the usual.
            turn = before[..., state.shape[-1] :] - act
            rest = self.net(torch.cat([line.features.asinh(), state, act, turn], dim=-1).float(), bf16)
        after = self.lawful(line.state + self.line.rest * rest)
        # Who is told may not teach: the body learns where things go, not what draws them well.
        expected = ((after - state) / self.line.change).detach()
        return self.Move(after, torch.cat([line.features[..., : state.shape[-1]], expected], dim=-1))

    def lawful(self, state: Tensor) -> Tensor:
        """The state (…, S) that obeys what all recordings obeyed (`laws.py`)."""
        with full_precision(state):
            return self.laws(state.float())

    def worth(self, after: Tensor) -> tuple[Tensor, Tensor]:
        """Reward in model units and success as a logit, (…) each, of a step that leads to this state."""
        if self.outcome is None:
            nothing = after.new_zeros(after.shape[:-1])
            return nothing, nothing
        with full_precision(after):
            reward, success = self.outcome(after.float()).unbind(-1)
        return reward, success


class BodyNet(nn.Module):
    """Residual layers on learnt Fourier features: contact is a matter of half a pixel between two things."""

    def __init__(self, size: int, out: int, width: int, layers: int) -> None:
        super().__init__()
        self.waves = nn.Linear(size, width)
        nn.init.normal_(self.waves.weight, std=0.5)
        nn.init.uniform_(self.waves.bias, -torch.pi, torch.pi)
        self.into = nn.Linear(size + width, width)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 2 * width),
                nn.GELU(),
                zero(nn.Linear(2 * width, width)),
            )
            for _ in range(layers)
        )
        self.out = nn.Sequential(nn.LayerNorm(width), zero(nn.Linear(width, out)))

    def forward(self, x: Tensor, bf16: bool = False) -> Tensor:
        h = self.into(torch.cat([x, self.waves(x).sin()], dim=-1))
        with half_precision(x, bf16):
            for layer in self.layers:
                h = h + layer(h)
        return self.out(h)
