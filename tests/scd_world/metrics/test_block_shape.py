"""The block's shape is read off any picture of PushT, and off no other."""

from __future__ import annotations

import numpy as np
import pytest

from scd_world.metrics.block_shape import (
    AREA,
    COLORS,
    SIDE,
    block_cover,
    block_shape,
    distance,
    is_pusht,
    turns,
)

SIZE, FINE = 96, 8  # pixels of a picture, and how finely each is drawn


def draw(inside) -> np.ndarray:
    """Draws what is inside, of places (…, 2) in px of 512, in the block's color on the ground's."""
    at = (np.arange(SIZE * FINE) + 0.5) * SIDE / (SIZE * FINE)
    z = np.stack(np.meshgrid(at, at), axis=-1)
    share = inside(z).reshape(SIZE, FINE, SIZE, FINE).mean((1, 3))[..., None]
    return (share * COLORS[0] + (1 - share) * COLORS[1]).round().astype(np.uint8)


def draw_t(x: float, y: float, angle: float) -> np.ndarray:
    R = turns(np.array([angle]))[0]
    return draw(lambda z: distance((z - [x, y]) @ R) < 0)


@pytest.fixture(scope="module")
def moved() -> np.ndarray:
    rng = np.random.default_rng(0)
    poses = zip(*rng.uniform(170, 340, (2, 12)), rng.uniform(-np.pi, np.pi, 12), strict=True)
    return np.stack([draw_t(*pose) for pose in poses])


def disc(radius: float) -> np.ndarray:
    return draw(lambda z: np.linalg.norm(z - 256, axis=-1) < radius)


def test_a_t_keeps_its_shape_wherever_it_is_moved_and_turned(moved):
    """A pixel is 5.3 px: the outline is found between pixels."""
    area, error = block_shape(moved)
    np.testing.assert_allclose(area, AREA, rtol=0.05)
    assert error.max() < 0.6


def test_a_blob_of_equal_area_is_no_t():
    area, error = block_shape(disc((AREA / np.pi) ** 0.5)[None])
    np.testing.assert_allclose(area, AREA, rtol=0.05)
    assert error[0] > 8


def test_an_l_of_equal_boxes_is_no_t():
    """Its area, its parts and nearly its outline are the T's."""
    parts = [([196, 196], [60, 15]), ([151, 256], [15, 75])]
    l_shape = draw(lambda z: np.any([(np.abs(z - c) < h).all(-1) for c, h in parts], axis=0))
    assert block_shape(l_shape[None])[1][0] > 5


def test_a_t_that_melts_loses_area_and_one_that_is_gone_has_no_outline(moved):
    cloud = moved[:, ::-1].mean(0).astype(np.uint8)  # where it might be
    empty = np.full_like(cloud, 255)
    area, error = block_shape(np.stack([cloud, empty]))
    assert area[0] < 0.5 * AREA
    assert area[1] == 0
    assert np.isnan(error[1])


def test_nothing_else_of_pusht_is_taken_for_the_block():
    """The agent's edge, half blue and half white, is nearest to the block's gray."""
    walls, agent_edge, goal = [211, 211, 211], [160, 180, 240], [144, 238, 144]
    between = (COLORS[1] + COLORS[2]) / 2
    frame = np.array([[walls, agent_edge, goal, between]]).round().astype(np.uint8)
    assert block_cover(frame[None]).max() < 0.5


def test_a_speck_elsewhere_is_not_of_the_block(moved):
    """One pixel of the agent's edge, imagined a shade too gray, moved the fit by thirty px."""
    speckled = moved.copy()
    speckled[:, 90, 3] = COLORS[0]
    for clean, other in zip(block_shape(moved), block_shape(speckled), strict=True):
        np.testing.assert_allclose(other, clean)


def test_it_knows_pusht_by_its_block(moved):
    assert is_pusht(moved)
    assert not is_pusht(disc((AREA / np.pi) ** 0.5)[None])
    assert not is_pusht(np.full((3, 16, 24, 3), 200, np.uint8))
    assert not is_pusht(np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), np.uint8))


def test_the_simulators_own_pictures_show_it():
    pusht = pytest.importorskip("scd_envs.simulators.pusht")
    env = pusht.PushT()
    frames = np.stack([env.reset(seed=seed)[0]["pixels"] for seed in range(4)])
    assert is_pusht(frames)
    assert block_shape(frames)[1].max() < 3
