"""A joint is moved by its own command alone, however often another one moved with it in the recordings."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from scd_world.prior.linear_dynamics import LinearDynamics
from scd_world.robot_data.joint_law import find_commands
from scd_world.robot_data.linear_fit import linear_inputs, ridge
from scd_world.robot_data.normalizer import Normalizer
from tests.conftest import SCHEMA

Transitions = tuple[Tensor, Tensor, Tensor, Tensor]


def arm(steps: int = 1500, together: float = 0.98, seed: int = 0) -> Transitions:
    """Two servos that were mostly moved together, the second with friction, and the height of a hand that
    both lift: state (R, 3), action (R, 2)."""
    g = torch.Generator().manual_seed(seed)
    slow = torch.randn(steps // 20 + 2, 2, generator=g).repeat_interleave(20, 0)[:steps]
    action = 0.3 * slow
    action[:, 1] = together * action[:, 0] + (1 - together) * action[:, 1]
    state = torch.zeros(steps, 3)
    for i in range(steps - 1):
        pull = action[i] - state[i, :2]
        pull[1] = pull[1] * (pull[1].abs() > 0.02)
        state[i + 1, :2] = state[i, :2] + 0.3 * pull + 2e-3 * torch.randn(2, generator=g)
        state[i + 1, 2] = state[i + 1, :2].sum()
    was, now, after = state[:-2], state[1:-1], state[2:]
    return torch.cat([was, action[:-2]], dim=-1), now, action[1:-1], after


def change_of(recorded: Transitions) -> Tensor:
    return (recorded[3] - recorded[1]).square().mean(0).sqrt()


def found(recorded: Transitions, candidates: int = 3) -> list[float]:
    return find_commands(*recorded, change_of(recorded), candidates).tolist()


def test_joints_are_found_and_what_several_commands_move_is_none():
    prev, state, action, after = recorded = arm(together=0.5)
    assert found(recorded) == [0, 1, -1]
    order = [2, 1, 0]  # which number is which is not told by where it stands
    swapped = (
        torch.cat([prev[:, :3][:, order], prev[:, 3:]], dim=-1),
        state[:, order],
        action,
        after[:, order],
    )
    assert found(swapped) == [-1, 1, 0]


def test_what_no_command_moves_and_what_is_not_the_robots_own_is_none():
    prev, state, action, after = arm()
    g = torch.Generator().manual_seed(0)
    walk = torch.randn(len(state) + 2, generator=g).cumsum(0) / 30
    for there in (walk, torch.zeros_like(walk)):
        parts = [part.clone() for part in (prev, state, after)]
        for i, part in enumerate(parts):
            part[:, 2] = there[i : i + len(state)]
        assert found((parts[0], parts[1], action, parts[2])) == [0, 1, -1]
    assert found(arm(), candidates=1) == [0, -1, -1]
    assert found(arm(), candidates=0) == found(arm(steps=60)) == [-1, -1, -1]


def test_what_another_number_bends_is_no_joint():
    """A weak joint under a heavy arm hangs by the cosine of another one's angle, which no line tells."""

    def recorded(heavy: float) -> Transitions:
        g = torch.Generator().manual_seed(0)
        action = torch.rand(2000, 2, generator=g) * 2 - 1
        state = torch.zeros(2000, 3)
        for i in range(1999):
            state[i + 1, :2] = state[i, :2] + 0.3 * (action[i] - state[i, :2])
            state[i + 1, 1] -= heavy * (4 * state[i, 0]).cos()
        return torch.cat([state[:-2], action[:-2]], dim=-1), state[1:-1], action[1:-1], state[2:]

    assert found(recorded(heavy=0.0)) == [0, 1, -1]
    assert found(recorded(heavy=0.2)) == [0, -1, -1]


@pytest.mark.parametrize("command", [0, 1])
def test_a_command_moves_its_own_joint_and_no_other(command):
    """Plain regression moves the other one, too: so this would fail if joints were not told apart."""
    recorded = arm()
    change, (prev, state, action, after) = change_of(recorded), recorded
    stats = replace(
        Normalizer.neutral(SCHEMA), state_delta_rms=change, commanded_by=torch.tensor([0.0, 1.0, -1.0])
    )
    linear = LinearDynamics(stats)
    linear.fit(*recorded)
    plain, _ = ridge(linear_inputs(prev, state, action, change), (after - state) / change)
    step = torch.zeros(2)
    step[command] = 0.3
    effects = []
    for weight in (linear.weight, plain.float()):
        linear.weight.copy_(weight)
        before, moved = (linear(prev, state, a).state for a in (action, action + step))
        effects.append((moved - before).mean(0)[:2] / 0.3)
    ours, theirs = effects
    assert ours[1 - command] == 0
    assert 0.15 < ours[command] < 0.35
    assert theirs[1 - command].abs() > 0.01


def test_what_hangs_on_a_joint_is_told_by_where_the_others_are():
    """Gravity: the law of its own would leave a joint as far off as it sags."""
    g = torch.Generator().manual_seed(0)
    action = torch.rand(2000, 2, generator=g) * 2 - 1
    state = torch.zeros(2000, 3)
    for i in range(1999):
        state[i + 1, :2] = state[i, :2] + 0.3 * (action[i] - state[i, :2])
        state[i + 1, 1] -= 0.05 * state[i, 0]
    recorded = torch.cat([state[:-2], action[:-2]], dim=-1), state[1:-1], action[1:-1], state[2:]
    stats = replace(
        Normalizer.neutral(SCHEMA),
        state_delta_rms=change_of(recorded),
        commanded_by=find_commands(*recorded, change_of(recorded), 3),
    )
    assert stats.joints.tolist() == [0, 1]
    linear = LinearDynamics(stats)
    linear.fit(*recorded)
    assert linear.residual[:2].max() < 0.02
    assert linear.weight[0, 3 + 1].abs() < 1e-3 < linear.weight[1, 3].abs()  # only the second one sags
