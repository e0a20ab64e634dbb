"""What all recordings have in common is found, nothing else is, and imagined states keep to it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from scd_world.prior.constraints import (
    StateConstraints,
    constant_quadratics,
    index_pairs,
    quadratic_features,
    quadratic_forms,
)
from scd_world.robot_data.normalizer import Normalizer


def rigid(rows: int) -> torch.Tensor:
    """Three corners (R, 6) of a triangle that moves and turns: 4 numbers are free, but for one law."""
    g = torch.Generator().manual_seed(0)
    place, angle = torch.rand(rows, 2, generator=g) - 0.5, 6.3 * torch.rand(rows, generator=g)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(rows, 2, 2)
    corners = torch.tensor([[0.0, 0.0], [0.4, 0.0], [0.1, 0.3]])
    return (place[:, None] + corners @ turn.mT).flatten(1)


def constraints_of(state: torch.Tensor, schema) -> StateConstraints:
    S = state.shape[1]
    stats = replace(
        Normalizer.neutral(schema),
        state_low=-torch.ones(S),
        state_high=torch.ones(S),
        state_delta_rms=torch.full((S,), 0.05),
    )
    constraints = StateConstraints(stats)
    constraints.fit(state)
    return constraints


def test_a_rigid_body_is_found_and_stays_rigid(schema):
    state = rigid(4000)
    constraints = constraints_of(state, schema)
    assert constraints.basis.shape == (4, 6)
    assert len(constraints.quadratics) == 1
    torch.testing.assert_close(constraints(state), state, atol=1e-4, rtol=0)  # what obeys is left alone
    bent = state[:100] + 0.01 * torch.randn(100, 6, generator=torch.Generator().manual_seed(1))
    mended = constraints(bent)
    assert (mended - state[:100]).norm() < (bent - state[:100]).norm()

    def sides(x: torch.Tensor) -> torch.Tensor:
        a, b, c = x.view(-1, 3, 2).unbind(1)
        return torch.stack([(a - b).norm(dim=-1), (b - c).norm(dim=-1), (c - a).norm(dim=-1)])

    wrong = (sides(bent) - sides(state[:100])).abs().mean()
    assert (sides(mended) - sides(state[:100])).abs().mean() < 0.05 * wrong


def test_a_thousand_careless_steps_do_not_deform_it(schema):
    state = rigid(4000)
    constraints, x = constraints_of(state, schema), state[:1]
    g = torch.Generator().manual_seed(2)
    for _ in range(1000):
        x = constraints(x + 0.01 * torch.randn(1, 6, generator=g))
    a, b = x.view(3, 2)[:2]
    assert (a - b).norm().item() == pytest.approx(0.4, abs=0.01)


def test_sine_and_cosine(schema):
    angle = 6.3 * torch.rand(3000, generator=torch.Generator().manual_seed(0))
    constraints = constraints_of(torch.stack([angle.sin(), angle.cos(), torch.randn(3000)], -1), schema)
    assert constraints.basis.shape == (3, 3)
    assert len(constraints.quadratics) == 1
    assert constraints(torch.tensor([[0.63, 0.83, 5.0]])).norm(dim=-1) == pytest.approx(
        (1 + 25) ** 0.5, abs=0.01
    )


def test_noise_and_plain_numbers_obey_nothing(schema):
    state = torch.randn(3000, 3, generator=torch.Generator().manual_seed(0))
    constraints = constraints_of(state, schema)
    assert not constraints.any
    assert constraints(state) is state
    noisy = rigid(4000) + 1e-2 * torch.randn(4000, 6, generator=torch.Generator().manual_seed(0))
    assert not constraints_of(noisy, schema).any  # a real sensor's keypoints


@pytest.mark.parametrize("rows", [0, 1, 30])
def test_few_recordings_prove_nothing(schema, rows):
    assert not constraints_of(rigid(max(rows, 1))[:rows], schema).any


def test_a_switch_is_not_thrown_by_its_law(schema):
    """g² = 1 of a gripper that is open or shut: a prediction between the two may not be sent far away."""
    g = torch.Generator().manual_seed(0)
    switch = torch.where(torch.rand(3000, generator=g) > 0.5, 1.0, -1.0)
    constraints = constraints_of(torch.stack([switch, torch.randn(3000, generator=g)], -1), schema)
    assert len(constraints.quadratics) == 1
    between = torch.stack([torch.linspace(-1, 1, 21), torch.zeros(21)], -1)
    moved = constraints(between)
    assert moved.isfinite().all()
    assert (moved - between).norm(dim=-1).max() <= constraints.farthest + 1e-5


def test_values_and_slopes_are_those_of_the_combinations():
    g = torch.Generator().manual_seed(0)
    z, quadratics = (torch.randn(n, dtype=torch.float64, generator=g) for n in ((4, 3), (2, 10)))
    constant, linear, hessian = quadratic_forms(quadratics, 3)
    slope = linear + (z @ hessian).unflatten(-1, (2, 3))

    def value(x: torch.Tensor) -> torch.Tensor:
        return quadratic_features(x, index_pairs(3)) @ quadratics.T

    torch.testing.assert_close(constant + ((linear + slope) @ z[..., None])[..., 0] / 2, value(z))
    for row in range(4):
        torch.testing.assert_close(slope[row], torch.autograd.functional.jacobian(value, z[row]))


def test_every_row_obeys_the_quadratic_law():
    z = (rigid(4000) - rigid(4000).mean(0)).double()
    _, _, directions = torch.linalg.svd(z, full_matrices=False)
    z = z @ directions[:4].T
    assert (quadratic_features(z, index_pairs(z.shape[-1])) @ constant_quadratics(z).T).abs().max() < 1e-3


def test_constraints_of_any_shape_are_loaded(schema):
    found = constraints_of(rigid(4000), schema)
    fresh = constraints_of(torch.randn(100, 6), schema)
    assert not fresh.any
    fresh.load_state_dict(found.state_dict())
    bent = rigid(10) + 0.01
    assert fresh.any
    assert torch.equal(fresh(bent), found(bent))
