"""The uncertainty says how far the state has strayed, and of no other row."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from scd_world.prior.dynamics import StateDynamics, Transition
from scd_world.prior.uncertainty import (
    KNOWN,
    MEMBERS,
    EnsembleUncertainty,
    calibrate_uncertainty,
    rollout_errors,
)
from scd_world.robot_data.normalizer import Normalizer
from scd_world.world.format3 import knots_of_line
from tests.conftest import make_model, make_recorded


class Cliff(torch.nn.Module):
    """A dynamics that stands still, unless it is above 0.5: it runs away from there, tenfold at each step."""

    def __init__(self, stats: Normalizer) -> None:
        super().__init__()
        self.linear = StateDynamics(stats, 8, 0).linear

    def predict_next(self, prev, state, action):
        return Transition(torch.where(state > 0.5, state + 10 * (state - 0.5), state), state)


@pytest.fixture
def cliff(stats) -> Cliff:
    return Cliff(stats)


def test_copies_spread_where_a_little_decides(cliff):
    uncertain, act = EnsembleUncertainty(3), torch.zeros(2, 2)
    state = torch.tensor([[-0.5, 0.0, 0.2], [-0.5, 0.0, 0.499]])  # the second stands at the edge
    copies = uncertain.init_ensemble(torch.cat([state, act], dim=-1), state)
    assert copies.shape == (2, MEMBERS, 3 + 2 + 3)
    assert not uncertain.spread(copies).any()
    for age in range(4):
        copies = uncertain.step_ensemble(cliff, copies, act, torch.full((2,), age))
    calm, edge = uncertain.spread(copies)
    assert edge > 5 * calm > 0


def test_a_rows_copies_do_not_depend_on_its_neighbours(model, clip):
    """Nor on when it was begun: what counts is its own age."""
    uncertain, dynamics, state = model.prior.uncertainty, model.prior.dynamics, clip.state[:, 0]
    copies, alone = (
        uncertain.init_ensemble(clip.prev, state),
        uncertain.init_ensemble(clip.prev[1:2], state[1:2]),
    )
    for age in range(3):
        together = torch.tensor([age + 5, age, 0])
        copies = uncertain.step_ensemble(dynamics, copies, clip.action[:, age], together)
        alone = uncertain.step_ensemble(dynamics, alone, clip.action[1:2, age], torch.tensor([age]))
    torch.testing.assert_close(copies[1:2], alone)


def test_what_is_observed_is_certain(model, clip):
    frame, shape = clip.obs[:, 0], clip.obs[:, 0].shape
    s = model.initial(frame, clip.state[:, 0], clip.prev)
    s = model.imagine(s, clip.action[:, 0], torch.randn(shape))
    s = model.imagine(s, clip.action[:, 1], torch.randn(shape))
    assert (model.prior.uncertainty.spread(s.ensemble) > 0).all()
    assert s.steps_since_observed.tolist() == [2, 2, 2]
    s = model.observe(s, clip.action[:, 2], clip.obs[:, 3], clip.state[:, 3])
    assert not model.prior.uncertainty.spread(s.ensemble).any()
    assert s.steps_since_observed.tolist() == [0, 0, 0]


def test_the_fit_says_the_mean_error(cliff):
    """Recordings that jump where the dynamics stays: its spread has to be scaled to be right on average."""
    g = torch.Generator().manual_seed(0)
    state = torch.rand(300, 3, generator=g) - 0.5
    jumps = (torch.rand(300, 1, generator=g) < 0.3) * torch.randn(300, 3, generator=g)
    nothing, starts = torch.zeros(300), torch.arange(0, 300, 10)
    recorded = make_recorded(
        state + jumps, torch.zeros(300, 2), nothing, nothing, starts, torch.full((30,), 10)
    )
    uncertain = EnsembleUncertainty(3)
    calibrate_uncertainty(uncertain, cliff, recorded, seed=0, windows=200, steps=8)
    row = recorded.sequences(9)[0]
    spread, error = rollout_errors(uncertain, cliff, recorded, row, 8)
    assert error.mean() > 10 * spread.mean()
    assert uncertain.calibrated_error(spread).mean().item() == pytest.approx(error.mean().item(), rel=0.1)


def test_the_curve_is_what_recordings_show_and_rises():
    """Errors that are no power of the spread: flat, then ten times as steep."""
    uncertain, g = EnsembleUncertainty(3), torch.Generator().manual_seed(0)
    spread = torch.rand(400, 8, generator=g)
    true = 0.01 + (10 * (spread - 0.8)).clamp_min(0)

    with pytest.MonkeyPatch.context() as patch:
        noise = torch.rand(400, 8, generator=g) * 2
        patch.setattr("scd_world.prior.uncertainty.rollout_errors", lambda *_: (spread, true * noise))
        zeros = torch.zeros(9)
        one = make_recorded(
            torch.zeros(9, 3), torch.zeros(9, 2), zeros, zeros, torch.zeros(1).long(), torch.tensor([9])
        )
        calibrate_uncertainty(uncertain, None, one, seed=0, steps=8)
    assert (uncertain.calibration_curve.diff() >= 0).all()
    for low, high in [(0.1, 0.5), (0.5, 0.75), (0.9, 1.0)]:
        rows = (spread > low) & (spread < high)
        assert uncertain.calibrated_error(spread[rows]).mean() == pytest.approx(
            true[rows].mean().item(), rel=0.15
        )
    # Past what was seen it goes on rising, by the root.
    far = uncertain.calibrated_error(torch.tensor([100.0, 10_000.0]))
    assert far[1] / far[0] == pytest.approx(10, rel=0.01)
    assert far[0] > true.max()


def test_a_world_that_was_saved_with_a_straight_line_says_what_it_said():
    uncertain, old = EnsembleUncertainty(3), {"prior.uncertainty.line": torch.tensor([1.0, 1.5]).half()}
    knots_of_line(old, KNOWN)
    uncertain.load_state_dict({name.removeprefix("prior.uncertainty."): value for name, value in old.items()})
    spread = torch.tensor([0.0, 0.003, 0.2])
    expected = (1.0 + 1.5 * (spread + 1e-3).log()).exp()
    torch.testing.assert_close(uncertain.calibrated_error(spread), expected, rtol=0.01, atol=0)


def test_episodes_too_short_to_unroll_leave_the_curve_as_it_is(cliff):
    nothing = torch.zeros(4)
    recorded = make_recorded(
        torch.zeros(4, 3), torch.zeros(4, 2), nothing, nothing, torch.arange(4), torch.ones(4).long()
    )
    uncertain = EnsembleUncertainty(3)
    calibrate_uncertainty(uncertain, cliff, recorded, seed=0)
    spread = torch.tensor([0.004, 0.3])
    torch.testing.assert_close(uncertain.calibrated_error(spread), spread + 1e-3)


def test_no_state_no_uncertainty(model):
    schema = replace(model.schema, agent_pos=(), environment_state=())
    blind = make_model(model.config, schema, Normalizer.neutral(schema))
    s = blind.initial(torch.zeros(2, 6, 8, 12), torch.zeros(2, 0))
    s = blind.imagine(s, torch.zeros(2, 2), torch.zeros(2, 6, 8, 12))
    assert s.ensemble.shape == (2, MEMBERS, 2)
