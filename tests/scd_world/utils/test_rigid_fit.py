"""The rigid fit finds the motion that made the points, and what a pose-reading policy acts on hangs on it."""

import numpy as np

from scd_world.utils.rigid_fit import rigid_fit

SHAPE = np.array([0.5, 0.5j, -1.0, 0.3 - 0.4j])
SHAPE = SHAPE - SHAPE.mean()


def test_it_recovers_the_motion_of_a_batch_of_any_rank():
    rng = np.random.default_rng(0)
    center = rng.normal(size=(5, 3)) + 1j * rng.normal(size=(5, 3))
    turn = np.exp(1j * rng.uniform(-np.pi, np.pi, (5, 3)))
    found_center, found_turn = rigid_fit(center[..., None] + SHAPE * turn[..., None], SHAPE)
    np.testing.assert_allclose(found_center, center, atol=1e-12)
    np.testing.assert_allclose(found_turn, turn, atol=1e-12)
    one_center, one_turn = rigid_fit(center[0, 0] + SHAPE * turn[0, 0], SHAPE)
    np.testing.assert_allclose([one_center, one_turn], [center[0, 0], turn[0, 0]], atol=1e-12)


def test_no_other_motion_is_nearer_to_noisy_points():
    rng = np.random.default_rng(1)
    points = 2 + 1j + SHAPE * np.exp(0.7j) + 0.1 * (rng.normal(size=4) + 1j * rng.normal(size=4))
    center, turn = rigid_fit(points, SHAPE)

    def error(center, turn):
        return (abs(points - center - SHAPE * turn) ** 2).sum()

    least = error(center, turn)
    assert abs(abs(turn) - 1) < 1e-12
    for step in (1e-3, -1e-3):
        assert error(center, turn * np.exp(1j * step)) > least
        assert error(center + step, turn) > least
        assert error(center + 1j * step, turn) > least
