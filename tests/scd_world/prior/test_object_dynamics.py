"""What is learnt of an object in one place and turn is known in all others."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from scd_world.prior.config import DynamicsPretrainConfig, PriorTrainConfig
from scd_world.prior.dynamics import StateDynamics
from scd_world.prior.fit_dynamics import fit_dynamics
from scd_world.prior.object_dynamics import ObjectDynamics, seen_from, turned_by
from scd_world.robot_data.normalizer import Normalizer
from scd_world.robot_data.trajectories import StateTrajectories
from tests.conftest import make_recorded

RADIUS = 6.0  # px


def units(low: Tensor, high: Tensor, usual: Tensor, actions: int) -> Normalizer:
    """Gives the units of states between two, raw, that usually change by so much."""
    return Normalizer(
        state_low=low, state_high=high, state_delta_rms=usual / ((high - low) / 2),
        hold_action=torch.zeros(actions, len(low) + 1),
        action_low=-torch.ones(actions), action_high=torch.ones(actions),
        reward_mean=torch.zeros(()), reward_std=torch.zeros(()), background=torch.zeros(3, 8, 8),
    )  # fmt: skip


def of_a_table(objects: int = 1, numbers: int = 4) -> Normalizer:
    """A robot whose state is its place in the picture, 10 to 90 px, and objects beside it."""
    size = 2 + objects * numbers
    return units(torch.full((size,), 10.0), torch.full((size,), 90.0), torch.ones(size), 2)


def random_weights(dynamics: ObjectDynamics) -> None:
    """Gives weights by which it goes somewhere; what is no point in the picture does not count."""
    g = torch.Generator().manual_seed(0)
    for p in dynamics.parameters():
        p.data.copy_(torch.randn(p.shape, generator=g) * (0.5 / max(1, p.shape[-1]) ** 0.5))
    for p in dynamics.extra[-1].parameters():
        p.data.zero_()
    for point in dynamics.points:
        point.set(40 / dynamics.far * torch.eye(2), torch.zeros(2))
        for p in point.residual.parameters():
            p.data.zero_()


def scene(seed: int, numbers: int, rows: int = 5) -> list[Tensor]:
    """States (R, S) raw, one frame earlier, now, and as expected next: points in a picture."""
    g = torch.Generator().manual_seed(seed)
    first = 40 + 20 * torch.rand(rows, 2 + numbers, generator=g)
    step = torch.randn(2, rows, 2 + numbers, generator=g)
    return [first, first + step[0], first + step[0] + step[1]]


@pytest.mark.parametrize("numbers", [4, 2])
def test_where_it_goes_turns_and_shifts_with_the_picture(numbers):
    stats = of_a_table(numbers=numbers)
    dynamics = ObjectDynamics(stats, [numbers], 0, 16, 2)
    random_weights(dynamics)
    angle = 1.1 if numbers == 4 else 0.0  # what does not turn is known to be shifted alone
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])

    def moved(raw: Tensor) -> Tensor:
        points = raw.unflatten(-1, (-1, 2)) - 50
        return (points @ turn.T + 50 + torch.tensor([7.0, -4.0])).flatten(-2)

    def goes(states: list[Tensor]) -> Tensor:
        units_ = [stats.encode_state(raw) for raw in states]
        after = dynamics(*units_, torch.zeros(5, 2))
        return after * dynamics.half_range + dynamics.center

    states = scene(0, numbers)
    there, here = goes([moved(raw) for raw in states]), moved(goes(states))
    torch.testing.assert_close(there, here, atol=1e-3, rtol=0)
    assert (goes(states) - states[1][:, 2:]).abs().amax() > 0.1  # it does go


def test_it_stays_rigid():
    stats = of_a_table()
    dynamics = ObjectDynamics(stats, [4], 0, 16, 2)
    random_weights(dynamics)
    states = [stats.encode_state(raw) for raw in scene(1, 4)]
    after = dynamics(*states, torch.zeros(5, 2)) * dynamics.half_range + dynamics.center
    length = [(raw[:, -2:] - raw[:, -4:-2]).norm(dim=1) for raw in (after, scene(1, 4)[1])]
    torch.testing.assert_close(*length)


def test_what_is_seen_from_a_heading_is_undone():
    heading, way = torch.nn.functional.normalize(torch.randn(7, 2), dim=1), torch.randn(7, 2)
    torch.testing.assert_close(turned_by(heading, seen_from(heading, way)), way)


def pushing(episodes: int, length: int, rows: tuple[float, float]) -> StateTrajectories:
    """A hand that goes where it is told, and a disc that it pushes out of its way, between two rows of a
    picture. What is told of the hand is not its place in the picture, but a turned, stretched map of it."""
    g = torch.Generator().manual_seed(round(rows[0]))
    low = torch.tensor([rows[0], 10.0])
    span = torch.tensor([rows[1] - rows[0], 80.0])
    disc = low + span * (0.3 + 0.4 * torch.rand(episodes, 2, generator=g))
    hand = disc + 12 * torch.randn(episodes, 2, generator=g)
    raw, told = torch.zeros(episodes, length, 4), torch.zeros(episodes, length, 2)
    target = disc
    for i in range(length):
        raw[:, i, :2], raw[:, i, 2:] = hand @ MAP.T, disc
        if i % 6 == 0:  # across the disc, or beside it
            far = torch.where(torch.rand(episodes, 1, generator=g) < 0.8, 4.0, 15.0)
            target = disc + far * torch.randn(episodes, 2, generator=g)
        told[:, i] = target @ MAP.T
        hand = hand + 0.15 * (target - hand)
        away = disc - hand
        apart = away.norm(dim=1, keepdim=True).clamp_min(1e-3)
        disc = disc + (RADIUS - apart).clamp_min(0) * away / apart
    flat, zeros = raw.flatten(0, 1), torch.zeros(episodes * length)
    return make_recorded(
        state=flat, action=told.flatten(0, 1), reward=zeros, success=zeros,
        starts=torch.arange(episodes) * length, lengths=torch.full((episodes,), length),
    )  # fmt: skip


MAP = torch.tensor([[0.2, 0.9], [-1.4, 0.3]])


def in_units(raw: StateTrajectories, stats: Normalizer) -> StateTrajectories:
    return replace(
        raw, state=stats.encode_state(raw.state), prev=stats.encode_prev(raw.prev),
        action=stats.encode_action(raw.action),
    )  # fmt: skip


@pytest.fixture(scope="module")
def pushed() -> tuple[Normalizer, StateTrajectories, StateTrajectories]:
    """Units, and pushes of the upper and of the lower half of a picture."""
    upper, lower = pushing(160, 25, (10, 50)), pushing(20, 25, (50, 90))
    both = torch.cat([upper.state, lower.state])
    low, high = both.amin(0), both.amax(0)
    usual = (upper.state[1:] - upper.state[:-1])[torch.arange(1, len(upper.state)) % 25 != 0]
    stats = units(low, high, usual.square().mean(0).sqrt(), 2)
    actions = torch.cat([upper.action, lower.action])
    stats = replace(stats, action_low=actions.amin(0), action_high=actions.amax(0))
    return stats, in_units(upper, stats), in_units(lower, stats)


def steps_of(recorded: StateTrajectories) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    row, last = recorded.sequences(1)
    row = row[row < last]
    return recorded.prev[row], recorded.state[row], recorded.action[row], recorded.state[row + 1]


def learned(stats: Normalizer, recorded: StateTrajectories, objects: tuple[int, ...]) -> StateDynamics:
    torch.manual_seed(0)
    dynamics = StateDynamics(stats, 48, 1, objects)
    dynamics.fit_closed_form(*steps_of(recorded))
    config = DynamicsPretrainConfig(steps=400, batch_size=256, rollout_length=1, init_noise=0.0, lr=3e-3)
    losses = list(fit_dynamics(dynamics, recorded, config, 0))
    assert sum(losses[-20:]) < 0.6 * sum(losses[:20])
    return dynamics


def test_where_the_robot_touches_is_found_in_the_recordings(pushed):
    stats, upper, _ = pushed
    dynamics = StateDynamics(stats, 16, 1, (2,))
    dynamics.fit_closed_form(*steps_of(upper))
    one = dynamics.objects[0]
    raw = stats.decode_state(upper.state)[:, :2]
    with torch.no_grad():
        place = one.far * one.points[0](upper.state) + one.center
    true = raw @ torch.linalg.inv(MAP).T
    assert (place - true).norm(dim=1).mean() < RADIUS  # it learns from there


@pytest.mark.slow
def test_pushes_of_one_half_of_the_picture_are_known_in_the_other(pushed):
    stats, upper, lower = pushed
    before, state, action, after = steps_of(lower)
    errors = []
    for objects in ((2,), ()):
        dynamics = learned(stats, upper, objects)
        with torch.no_grad():
            wrong = dynamics.predict_next(before, state, action).state - after
        errors.append(wrong[:, 2:].abs().mean().item())
    still = (state - after)[:, 2:].abs().mean().item()
    assert errors[0] < 0.5 * still
    assert errors[0] < 0.7 * errors[1]


def test_each_object_sees_the_others():
    stats = of_a_table(objects=2, numbers=4)
    dynamics = StateDynamics(stats, 16, 1, (4, 4))
    for one in dynamics.objects:
        random_weights(one)
    state = stats.encode_state(torch.rand(1, 10) * 60 + 20).requires_grad_()
    before = torch.cat([state.detach(), torch.zeros(1, 2)], -1)
    after = dynamics.predict_next(before, state, torch.zeros(1, 2)).state
    (first,) = torch.autograd.grad(after[0, 2], state)
    assert first[0, 6:8].abs().max() > 0  # the other's middle
    assert after.shape == state.shape


def test_only_what_a_codec_can_find_is_an_object():
    settings = PriorTrainConfig()
    assert settings.architecture((4, 2)).objects == (4, 2)
    assert replace(settings, layers=0).architecture((4,)).objects == ()
    assert "objects" not in settings.architecture().as_saved
    with pytest.raises(ValueError, match="2 or 4"):
        settings.architecture((3,))


def test_a_number_that_never_changes_stays():
    """A thing on a rail: its row is always 40. It was divided by nothing, and was a million pixels off."""
    low, high = torch.tensor([-1.0, -1, 40, 10]), torch.tensor([1.0, 1, 40, 50])
    torch.manual_seed(0)
    normalizer = replace(units(low, high, torch.ones(4), 2), state_delta_rms=torch.full((4,), 0.05))
    dynamics = StateDynamics(normalizer, 32, 1, (2,))
    random_weights(dynamics.objects[0])
    state = torch.rand(5, 4) * 2 - 1
    state[:, 2] = 0
    after = dynamics.predict_next(torch.cat([state, torch.zeros(5, 2)], 1), state, torch.zeros(5, 2)).state
    assert after[:, 2].abs().max() < 100
