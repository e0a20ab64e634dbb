"""Clones do what they were shown, wherever the thing lies; eyes learn to read a picture."""

import gymnasium
import numpy as np
import pytest

from scd_policies import make
from scd_policies.nearest_neighbor import fit_nearest_neighbor
from scd_policies.state_estimator import EstimatedStatePolicy, train_state_estimator

BOX = gymnasium.spaces.Box(-9, 9, (2,), np.float64)
THING = np.array([0.5, 0.5j, -1.0, 0.3 - 0.4j])  # four points, as complex numbers


def pairs(places):
    """(..., N) complex -> (..., 2 N) real, float32 as environments say them."""
    return np.stack([places.real, places.imag], -1).reshape(len(places), -1).astype(np.float32)


def moment(agent, centre, angle):
    """A pusher at `agent`, as the thing at `centre`, turned by `angle`, sees it; all (B,)."""
    turn = np.exp(1j * angle)
    return {
        "agent_pos": pairs((centre + agent * turn)[:, None]),
        "environment_state": pairs(centre[:, None] + THING * turn[:, None]),
    }


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """Of two lessons: from the left it goes to 1+2i of the thing, and then to 1-2i; from the right to 2."""
    path = tmp_path_factory.mktemp("clone") / "clone.safetensors"
    agent = np.array([-3, -1 + 1j, 3, 2.5])
    state = moment(agent, np.zeros(4, complex), np.zeros(4))
    fit_nearest_neighbor(state, pairs(np.array([[1 + 2j], [1 - 2j], [2], [2]])), [2, 4], path)
    return path


def test_a_clone_does_beside_the_thing_what_it_was_shown(clone):
    rng = np.random.default_rng(0)
    centre, angle = rng.uniform(-0.3, 0.3, 9) + 0j, rng.uniform(-0.3, 0.3, 9)
    agent = rng.choice([-3.0, 3.0], 9)
    policy = make("nearest_neighbor", BOX, path=clone)
    policy.reset(range(9))
    aim = np.where(agent < 0, 1 + 2j, 2)
    # float32 observations
    np.testing.assert_allclose(
        policy.act(moment(agent, centre, angle)),
        pairs((centre + aim * np.exp(1j * angle))[:, None]),
        atol=1e-5,
    )


def test_a_clone_remembers_its_last_action_until_reset(clone):
    """Half way between two moments that were shown, what it is doing decides which one this is."""
    between = moment(np.array([-2 + 0.5j]), np.zeros(1, complex), np.zeros(1))
    policy = make("nearest_neighbor", BOX, path=clone)
    policy.reset([0])
    said = [policy.act(between)[0] for _ in range(2)]
    np.testing.assert_allclose(said, [[1, 2], [1, -2]], atol=1e-5)
    policy.reset([0])
    np.testing.assert_allclose(policy.act(between)[0], [1, 2], atol=1e-5)


def test_rows_of_a_clone_know_nothing_of_each_other(clone):
    rng = np.random.default_rng(1)
    scenes = [moment(4 * rng.standard_normal(5), np.zeros(5) + 0j, rng.uniform(-2, 2, 5)) for _ in range(6)]
    together = make("nearest_neighbor", BOX, path=clone)
    together.reset(range(5))
    said = np.stack([together.act(scene) for scene in scenes], 1)
    for row in range(5):
        alone = make("nearest_neighbor", BOX, path=clone)
        alone.reset([row])
        own = [alone.act({key: value[[row]] for key, value in scene.items()})[0] for scene in scenes]
        np.testing.assert_array_equal(own, said[row])


def test_a_clone_says_what_it_misses(clone):
    policy = make("nearest_neighbor", BOX, path=clone)
    policy.reset([0])
    with pytest.raises(ValueError, match="environment_state"):
        policy.act({"agent_pos": np.zeros((1, 2))})
    with pytest.raises(ValueError, match=r"'environment_state': 8} numbers; observed are .* 6}"):
        policy.act({"agent_pos": np.zeros((1, 2)), "environment_state": np.zeros((1, 6))})
    with pytest.raises(ValueError, match="acts in 2 numbers; this environment takes 3"):
        make("nearest_neighbor", gymnasium.spaces.Box(-1, 1, (3,)), path=clone)
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        make("nearest_neighbor", BOX, path=clone.parent / "none.safetensors")
    one = np.zeros((1, 2))
    with pytest.raises(ValueError, match=r"two or more points .* \(1, 2\), \(1, 2\), \(1, 2\)"):
        fit_nearest_neighbor({"agent_pos": one, "environment_state": one}, one, [1], clone)


class Pointing:
    """Acts where it sees the block."""

    def reset(self, seeds):
        pass

    def act(self, obs):
        return obs["environment_state"]


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A dark square on white, and where it is."""
    places = np.random.default_rng(seed).integers(2, 28, (count, 2))
    pixels = np.full((count, 32, 32, 3), 255, np.uint8)
    for picture, (row, column) in zip(pixels, places, strict=True):
        picture[row - 2 : row + 3, column - 2 : column + 3] = 40
    return pixels, places.astype(np.float32)


def test_eyes_find_the_block_and_hide_where_it_was_said_to_be(tmp_path):
    train_state_estimator(*pictures(400, 0), tmp_path / "eyes.safetensors", updates=250, width=16)
    pixels, places = pictures(40, 1)
    policy = EstimatedStatePolicy(Pointing(), tmp_path / "eyes.safetensors")
    policy.reset(range(40))
    pointed = policy.act({"pixels": pixels, "environment_state": np.full((40, 2), -1.0)})
    assert np.abs(pointed - places).mean() < 1.5


def test_a_file_of_another_kind_is_refused(clone):
    with pytest.raises(ValueError, match="holds 'clone'; expected 'eyes'"):
        EstimatedStatePolicy(Pointing(), clone)
