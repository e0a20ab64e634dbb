"""The dynamics of the state alone: a linear model, and a small network on top of it.

Robots under position control follow a linear model closely, and what they push follows from where it is and
where they go: neither needs a pixel, both are learnt from thousands of times more steps than images allow
(`fit_dynamics.py`). A joint that follows a command of its own has a network of its own
(`joint_dynamics.py`); what was found by sight goes on in its own frame of reference (`object_dynamics.py`).
What is not in the state, the world model's heads add.

S state size, A action size; everything in model units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from scd_world.model.prior import PriorPrediction
from scd_world.prior.constraints import StateConstraints
from scd_world.prior.fourier_mlp import FourierMLP
from scd_world.prior.joint_dynamics import JointDynamics
from scd_world.prior.linear_dynamics import LinearDynamics
from scd_world.prior.object_dynamics import ObjectDynamics
from scd_world.robot_data.normalizer import Normalizer
from scd_world.utils.precision import full_precision

JOINT_SHARE = 8  # a joint's own network is so much narrower than the one that sees all


class Transition(NamedTuple):
    """Where a step leads."""

    state: Tensor  # (…, S) the next state
    delta_features: Tensor  # (…, 2·S) velocity and expected change, in units of the usual change


class StateDynamics(nn.Module):
    order: Tensor  # (T,) int: where each recorded number is, behind one another the joints and the others

    def __init__(self, normalizer: Normalizer, width: int, layers: int, objects: Sequence[int] = ()) -> None:
        """With no `layers` the linear model is all there is. objects: how many of the state's last numbers
        are each object's that was found by sight."""
        super().__init__()
        self.linear, self.constraints = LinearDynamics(normalizer), StateConstraints(normalizer)
        S = len(normalizer.state_low)
        learns = bool(S and layers)
        inputs = 3 * S + 2 * len(normalizer.action_low)
        self.told = S - sum(objects) if learns else S  # numbers that were recorded, not found by sight
        joints = normalizer.joints.tolist() if learns else []
        others = [i for i in range(self.told) if i not in joints]
        small = max(1, width // JOINT_SHARE), max(1, layers - 1)
        self.joints = JointDynamics(normalizer, *small) if joints else None
        self.residual_net = (
            FourierMLP(inputs, len(others), width, layers) if learns and (others or not joints) else None
        )
        self.register_buffer("order", torch.tensor([*joints, *others]).argsort(), persistent=False)
        self.objects = nn.ModuleList(
            ObjectDynamics(normalizer, objects, i, width, layers) for i in range(len(objects)) if learns
        )
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
        with full_precision(state):  # a law is a difference of large numbers
            linear = self.linear(prev, state, action)
            if self.outcome_net is None:  # no network at all
                return Transition(self.project(linear.state), linear.delta_features)
            told, end = self.told, state.shape[-1]
            # asinh: most velocities are small, and some are twenty times the usual.
            features, turn = linear.delta_features.asinh(), prev[..., end:] - action
            residual = []
            if self.joints is not None:
                residual.append(self.joints(features, state, action, turn))
            if self.residual_net is not None:
                inputs = torch.cat([features, state, action, turn], dim=-1)
                residual.append(self.residual_net(inputs.float(), bf16))
            scale = self.linear.residual_scale[:told]
            after = linear.state[..., :told] + scale * torch.cat(residual, dim=-1)[..., self.order]
            if self.objects:  # detached: the robot learns where it goes from itself alone
                before, now = (
                    torch.cat([x[..., :told].detach(), x[..., told:end]], -1) for x in (prev, state)
                )
                ahead = torch.cat([after.detach(), linear.state[..., told:]], -1)
                found = [one(before, now, ahead, action, bf16) for one in self.objects]
                after = torch.cat([after, *found], -1)
        after = self.project(after)
        # Detached: the prior learns where things go, not what draws them well.
        expected = ((after - state) / self.linear.delta_scale).detach()
        velocity = linear.delta_features[..., : state.shape[-1]]
        return Transition(after, torch.cat([velocity, expected], dim=-1))

    def fit_closed_form(self, prev: Tensor, state: Tensor, action: Tensor, after: Tensor) -> None:
        """Fits what needs seconds, to R recorded transitions; after (R, S): the next states."""
        self.linear.fit(prev, state, action, after)
        for one in self.objects:
            one.fit(state, after)  # type: ignore[operator]

    @property
    def trained(self) -> nn.Module | None:
        """All that learns where states lead."""
        parts = [part for part in (self.residual_net, self.joints, *self.objects) if part is not None]
        return nn.ModuleList(parts) if len(parts) > 1 else next(iter(parts), None)

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
