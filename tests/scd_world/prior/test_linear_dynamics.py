"""The linear model finds a line where there is one, and claims nothing where there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from scd_world.prior.linear_dynamics import LinearDynamics
from scd_world.robot_data.linear_fit import fit_hold_action
from scd_world.robot_data.normalizer import standstill


def test_a_linear_system_is_found_exactly_and_noise_is_left(schema, stats):
    g = torch.Generator().manual_seed(0)
    was, state, after = (torch.rand(500, 3, generator=g) for _ in range(3))
    did, act = (torch.rand(500, 2, generator=g) for _ in range(2))
    before = torch.cat([was, did], dim=-1)
    # A damped servo: it keeps some of its velocity, which its last order tells too, and goes a third of
    # the way to its target.
    after[:, :2] = state[:, :2] + 0.5 * (state - was)[:, :2] + (act - state[:, :2]) / 3 + 0.1 * did
    change = (after - state).square().mean(0).sqrt()
    linear = LinearDynamics(replace(stats, state_delta_rms=change))
    linear.fit(before, state, act, after)
    assert linear.residual[0] < 1e-3 > linear.residual[1]
    assert 0.5 < linear.residual[2] < 1.0
    out = linear(before, state, act)
    torch.testing.assert_close(out.state[:, :2], after[:, :2], atol=1e-3, rtol=0)
    torch.testing.assert_close(out.delta_features[:, :3], (state - was) / change)


@pytest.mark.parametrize("servo", [True, False], ids=["position", "velocity"])
def test_what_keeps_a_robot_at_rest(servo):
    """Its own place under position control, zero under velocity control; what moves at random has no say."""
    g = torch.Generator().manual_seed(0)
    was, state, after = (torch.rand(2000, 3, generator=g) * 2 - 1 for _ in range(3))
    act = torch.rand(2000, 2, generator=g) * 2 - 1
    pull = (act - state[:, :2]) / 3 if servo else act / 3
    after[:, :2] = state[:, :2] + 0.2 * (state - was)[:, :2] + pull
    before = torch.cat([was, torch.zeros_like(act)], dim=-1)
    hold = fit_hold_action(before, state, act, after, (after - state).square().mean(0).sqrt())
    where = torch.tensor([[0.3, -0.5, 0.9], [-0.8, 0.1, -0.2]])
    rest = standstill(where, hold)
    torch.testing.assert_close(rest[:, :3], where)
    torch.testing.assert_close(rest[:, 3:], where[:, :2] if servo else torch.zeros(2, 2), atol=0.02, rtol=0)


def test_an_action_that_was_not_is_the_one_that_holds(stats):
    stats = replace(stats, hold_action=torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]))
    state = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    act = torch.tensor([[1.0, 100.0], [torch.nan, torch.nan]])
    known, unknown = stats.encode_prev(torch.cat([state, act], dim=-1))
    torch.testing.assert_close(known[3:], stats.encode_action(act[0]))
    torch.testing.assert_close(unknown[3:], stats.encode_state(state[0])[:2])
    torch.testing.assert_close(known[:3], unknown[:3])
