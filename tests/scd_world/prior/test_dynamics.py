"""The dynamics learn from states alone what no linear model can, and a rollout of them holds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from scd_world.distill.objective import read_clip
from scd_world.prior.config import DynamicsPretrainConfig, OutcomePretrainConfig
from scd_world.prior.dynamics import StateDynamics
from scd_world.prior.fit_dynamics import fit_dynamics
from scd_world.prior.fit_outcome import fit_outcome, near_success_mask, predict_next_states
from scd_world.prior.pretraining_report import dynamics_result, outcome_result
from scd_world.robot_data.normalizer import Normalizer
from scd_world.robot_data.trajectories import StateTrajectories
from tests.conftest import SCHEMA, make_recorded


def pushed_block(episodes: int, length: int, schema) -> StateTrajectories:
    """A hand that goes where its action points, and a block that moves only while the hand is beyond it."""
    g = torch.Generator().manual_seed(0)
    act = torch.rand(episodes, length, 2, generator=g) * 2 - 1
    state = torch.zeros(episodes, length, 3)
    for i in range(length - 1):
        hand, block = state[:, i, :2] + 0.5 * (act[:, i] - state[:, i, :2]), state[:, i, 2]
        state[:, i + 1, :2], state[:, i + 1, 2] = hand, torch.maximum(block, hand[:, 0])
    starts = torch.arange(episodes) * length
    flat = state.flatten(0, 1)
    return make_recorded(
        state=flat,
        action=act.flatten(0, 1),
        reward=flat[:, 2],
        success=(flat[:, 2] > 0.5).float(),
        starts=starts,
        lengths=torch.full((episodes,), length),
    )


@pytest.fixture(scope="module", params=[False, True], ids=["fp32", "bf16"])
def fitted(request) -> tuple[StateDynamics, StateTrajectories]:
    torch.manual_seed(0)
    dynamics = StateDynamics(Normalizer.neutral(SCHEMA), width=32, layers=1)
    recorded = pushed_block(40, 12, SCHEMA)
    config = DynamicsPretrainConfig(steps=500, batch_size=64, rollout_length=3, lr=3e-3)
    losses = list(fit_dynamics(dynamics, recorded, config, 0, request.param))
    assert sum(losses[-20:]) < 0.3 * sum(losses[:20])
    outcome = OutcomePretrainConfig(steps=300, batch_size=64, lr=3e-3)
    losses = list(fit_outcome(dynamics, recorded, outcome, 0))
    assert sum(losses[-20:]) < 0.3 * sum(losses[:20])
    return dynamics, recorded


@pytest.mark.slow
def test_a_stages_result_is_reported_and_a_failure_is_called_so(fitted, schema):
    dynamics, recorded = fitted
    untaught = StateDynamics(Normalizer.neutral(schema), width=32, layers=1)
    for result_of in (dynamics_result, outcome_result):
        assert result_of(dynamics, recorded) != []
        assert not any(figure.failed for figure in result_of(dynamics, recorded))
        assert all(figure.failed for figure in result_of(untaught, recorded))
        assert result_of(dynamics, pushed_block(0, 1, schema)) == []


@pytest.mark.slow
def test_contact_is_learnt_and_a_rollout_does_not_drift(fitted):
    dynamics, recorded = fitted
    row = recorded.starts
    before, state = recorded.prev[row], recorded.state[row]
    with torch.no_grad():
        for i in range(10):
            act = recorded.action[row + i]
            out = dynamics(before, state, act)
            before, state = torch.cat([state, act], dim=-1), out.state
    still = (recorded.state[row] - recorded.state[row + 10]).abs().mean(0)
    wrong = (state - recorded.state[row + 10]).abs().mean(0)
    assert (wrong < 0.3 * still).all(), (wrong, still)
    pushed = recorded.success[row + 10] > 0
    assert out.success[pushed].mean() > out.success[~pushed].mean() + 1


def test_sequences_stay_inside_their_episode(schema):
    recorded = replace(pushed_block(3, 5, schema), lengths=torch.tensor([5, 2, 5]))
    rows, last = recorded.sequences(3)
    assert rows.tolist() == [0, 1, 2, 10, 11, 12]
    assert last.tolist() == [4] * 3 + [14] * 3


def test_short_episodes_shorten_the_unroll_and_none_leave_the_line(schema):
    stats = Normalizer.neutral(schema)
    dynamics = StateDynamics(stats, width=8, layers=1)
    config = DynamicsPretrainConfig(steps=2, batch_size=4, rollout_length=8)
    assert len(list(fit_dynamics(dynamics, pushed_block(4, 3, schema), config, 0))) == 2
    assert not list(fit_dynamics(dynamics, pushed_block(0, 1, schema), config, 0))
    assert not list(fit_dynamics(StateDynamics(stats, 8, 0), pushed_block(4, 9, schema), config, 0))


def test_untrained_dynamics_are_the_linear_model(stats):
    with_net, without = StateDynamics(stats, 16, 2), StateDynamics(stats, 16, 0)
    x = torch.randn(3, 5, 5), torch.randn(3, 5, 3), torch.randn(3, 5, 2)
    for one, other in zip(with_net(*x), without(*x), strict=True):
        torch.testing.assert_close(one, other)


def test_the_error_of_pixels_does_not_reach_the_prior(model, clip):
    """The dynamics would learn what draws well instead of where things go."""
    noise = model.sample_noise(clip, torch.Generator().manual_seed(0))
    model.config = replace(model.config, state_weight=0.0, reward_weight=0.0, success_weight=0.0)
    loss, _ = model.loss(clip, noise)
    loss.backward()
    touched = [
        name for name, p in model.prior.dynamics.named_parameters() if p.grad is not None and p.grad.any()
    ]
    assert not touched


def test_rare_successes_are_found_and_probabilities_stay_honest(schema):
    """One step in fifty succeeds; it is drawn more often than that, and predicted no more often for it."""
    g = torch.Generator().manual_seed(0)
    state = torch.rand(6000, 3, generator=g) * 2 - 1
    chance = torch.sigmoid(12 * (state[:, 0] - 1.0))
    success = (torch.rand(6000, generator=g) < chance).float()
    starts = torch.arange(0, 6000, 2)
    recorded = make_recorded(
        state, torch.zeros(6000, 2), state[:, 0], success, starts, torch.full((3000,), 2)
    )
    torch.manual_seed(0)
    dynamics = StateDynamics(Normalizer.neutral(schema), width=32, layers=1)
    list(fit_outcome(dynamics, recorded, OutcomePretrainConfig(steps=600, batch_size=128, lr=3e-3), seed=0))
    row, _ = recorded.sequences(1)
    with torch.no_grad():
        predicted = dynamics.predict_outcome(predict_next_states(dynamics, recorded, row))[1].sigmoid()
    assert 0.01 < success.mean() < 0.05
    assert predicted.mean().item() == pytest.approx(recorded.success[row].mean().item(), rel=0.25)
    assert predicted[recorded.success[row] > 0].mean() > 8 * predicted[recorded.success[row] == 0].mean()


def test_nor_where_a_clip_is_read_for_distilling(model, clip):
    noise = model.sample_noise(clip, torch.Generator().manual_seed(0))
    read_clip(model, clip, noise).h.square().sum().backward()
    assert not any(p.grad is not None and p.grad.any() for p in model.prior.dynamics.parameters())


def test_what_is_near_a_success_whatever_the_reward_is():
    success = (torch.arange(3000) % 300 == 299).float()
    none, sparse, dense = torch.zeros(3000), success, torch.linspace(0, 1, 3000)
    for reward in (none, sparse):  # not recorded; the success itself: its lowest value is no high one
        assert torch.equal(near_success_mask(reward, success), success > 0)
    assert 0.1 < near_success_mask(dense, success).float().mean() < 0.2
    assert near_success_mask(none, none).all()  # nothing stands out


def test_the_next_state_is_the_same_in_mixed_precision():
    """The linear law is a difference of large numbers: in bf16 G1's was off by a fifth of a usual change."""
    torch.manual_seed(0)
    dynamics = StateDynamics(Normalizer.neutral(SCHEMA), width=32, layers=1)
    dynamics.linear.weight.copy_(torch.randn(dynamics.linear.weight.shape))
    S, A = len(SCHEMA.state), len(SCHEMA.action)
    given = torch.randn(4, S + A), torch.randn(4, S), torch.randn(4, A)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = dynamics.predict_next(*given)
    assert all(map(torch.equal, mixed, dynamics.predict_next(*given)))
