"""Each joint has a network that sees nothing but that joint, and learns of it what is not linear."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from scd_world.prior.config import DynamicsPretrainConfig
from scd_world.prior.dynamics import StateDynamics
from scd_world.prior.fit_dynamics import fit_dynamics
from scd_world.robot_data.normalizer import Normalizer
from tests.conftest import SCHEMA, make_recorded


def dynamics_of(commanded_by: list[float], layers: int = 2, **stats) -> StateDynamics:
    torch.manual_seed(0)
    normalizer = replace(Normalizer.neutral(SCHEMA), commanded_by=torch.tensor(commanded_by), **stats)
    return StateDynamics(normalizer, width=128, layers=layers)


def excited(dynamics: StateDynamics) -> StateDynamics:
    """With weights that are not zero anywhere."""
    g = torch.Generator().manual_seed(0)
    for parameter in dynamics.trained.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=g) / 3)
    dynamics.linear.residual.fill_(1.0)
    return dynamics


def test_another_joints_motion_and_command_change_nothing():
    """And each answer is where its number stands, in front of and behind what is no joint."""
    dynamics = excited(dynamics_of([1.0, -1.0, 0.0]))
    g = torch.Generator().manual_seed(1)
    prev, state, action = (torch.rand(4, n, generator=g) for n in (5, 3, 2))

    def after(**changes: int) -> torch.Tensor:
        parts = {"prev": prev, "state": state, "action": action}
        for name, i in changes.items():
            parts[name] = parts[name].clone()
            parts[name][:, i] += 0.5
        return dynamics.predict_next(**parts).state

    def moved(**changes: int) -> list[bool]:
        return ((after(**changes) - after()).abs().amax(0) > 1e-6).tolist()

    assert moved(action=0) == [False, True, True]  # number 2 follows it, 1 follows all
    assert moved(action=1) == [True, True, False]
    assert moved(prev=0) == [True, True, False]  # its velocity
    assert moved(prev=3) == [False, True, True]  # the command before
    assert moved(state=2) == [False, True, True]


@pytest.mark.parametrize("commanded_by", [[0.0, 1.0, 1.0], [0.0, 1.0, -1.0], [-1.0, -1.0, -1.0]])
def test_parts_are_made_as_they_are_needed(commanded_by):
    dynamics = dynamics_of(commanded_by)
    assert (dynamics.joints is None) == (max(commanded_by) < 0)
    assert (dynamics.residual_net is None) == (min(commanded_by) >= 0)
    ensemble = torch.zeros(2, 5, 3)  # rows × members
    out = dynamics(torch.zeros(2, 5, 5), ensemble, torch.zeros(2, 5, 2))
    assert out.state.shape == (2, 5, 3)
    assert dynamics_of(commanded_by, layers=0).trained is None


def test_friction_is_learnt():
    """A servo that does not move before its command is far enough away: no line says so."""
    g = torch.Generator().manual_seed(0)
    episodes, length = 30, 25
    action = torch.rand(episodes, length, 2, generator=g) * 2 - 1
    state = torch.zeros(episodes, length, 3)
    for i in range(length - 1):
        pull = action[:, i] - state[:, i, :2]
        state[:, i + 1, :2] = state[:, i, :2] + 0.5 * pull * (pull.abs() > 0.5)
    recorded = make_recorded(
        state=state.flatten(0, 1),
        action=action.flatten(0, 1),
        reward=torch.zeros(episodes * length),
        success=torch.zeros(episodes * length),
        starts=torch.arange(episodes) * length,
        lengths=torch.full((episodes,), length),
    )
    rows = torch.arange(episodes * length).view(episodes, length)[:, 1:-1].flatten()
    transitions = recorded.prev[rows], recorded.state[rows], recorded.action[rows], recorded.state[rows + 1]
    change = (transitions[3] - transitions[1]).square().mean(0).sqrt()
    dynamics = dynamics_of([0.0, 1.0, -1.0], state_delta_rms=change)
    dynamics.fit_closed_form(*transitions)

    def error() -> torch.Tensor:
        with torch.no_grad():
            return (dynamics.predict_next(*transitions[:3]).state - transitions[3])[:, :2].abs().mean()

    line = error()
    config = DynamicsPretrainConfig(steps=200, batch_size=64, rollout_length=3, init_noise=0.0, lr=0.01)
    losses = list(fit_dynamics(dynamics, recorded, config, 0))
    assert sum(losses[-20:]) < 0.3 * sum(losses[:20])
    assert error() < 0.2 * line
