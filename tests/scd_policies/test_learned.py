"""Imitation acts as it was shown, wherever the object lies; a state estimator learns to read an image."""

import gymnasium
import numpy as np
import pytest

from scd_policies import make, regression
from scd_policies.nearest_neighbor import fit_nearest_neighbor
from scd_policies.state_estimator import EstimatedStatePolicy, train_state_estimator

BOX = gymnasium.spaces.Box(-9, 9, (2,), np.float64)
OBJECT = np.array([0.5, 0.5j, -1.0, 0.3 - 0.4j])  # four points, as complex numbers


def pairs(points):
    """(..., N) complex -> (..., 2 N) real, float32 as environments give them."""
    return np.stack([points.real, points.imag], -1).reshape(len(points), -1).astype(np.float32)


def observe(agent, center, angle):
    """A pusher at `agent`, in the frame of the object at `center`, turned by `angle`; all (B,)."""
    turn = np.exp(1j * angle)
    return {
        "agent_pos": pairs((center + agent * turn)[:, None]),
        "environment_state": pairs(center[:, None] + OBJECT * turn[:, None]),
    }


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    """Two: from the left it goes to 1+2i of the object, and then to 1-2i; from the right to 2."""
    path = tmp_path_factory.mktemp("imitation") / "demonstrations.safetensors"
    agent = np.array([-3, -1 + 1j, 3, 2.5])
    state = observe(agent, np.zeros(4, complex), np.zeros(4))
    fit_nearest_neighbor(state, pairs(np.array([[1 + 2j], [1 - 2j], [2], [2]])), [2, 4], path)
    return path


def test_it_acts_beside_the_object_as_it_was_shown(demonstrations):
    rng = np.random.default_rng(0)
    center, angle = rng.uniform(-0.3, 0.3, 9) + 0j, rng.uniform(-0.3, 0.3, 9)
    agent = rng.choice([-3.0, 3.0], 9)
    policy = make("nearest_neighbor", BOX, path=demonstrations)
    policy.reset(range(9))
    aim = np.where(agent < 0, 1 + 2j, 2)
    # float32 observations
    np.testing.assert_allclose(
        policy.act(observe(agent, center, angle)),
        pairs((center + aim * np.exp(1j * angle))[:, None]),
        atol=1e-5,
    )


def test_it_remembers_its_last_action_until_reset(demonstrations):
    """Half way between two frames that were shown, its last action decides which one this is."""
    between = observe(np.array([-2 + 0.5j]), np.zeros(1, complex), np.zeros(1))
    policy = make("nearest_neighbor", BOX, path=demonstrations)
    policy.reset([0])
    actions = [policy.act(between)[0] for _ in range(2)]
    np.testing.assert_allclose(actions, [[1, 2], [1, -2]], atol=1e-5)
    policy.reset([0])
    np.testing.assert_allclose(policy.act(between)[0], [1, 2], atol=1e-5)


def test_rows_know_nothing_of_each_other(demonstrations):
    rng = np.random.default_rng(1)
    scenes = [observe(4 * rng.standard_normal(5), np.zeros(5) + 0j, rng.uniform(-2, 2, 5)) for _ in range(6)]
    together = make("nearest_neighbor", BOX, path=demonstrations)
    together.reset(range(5))
    batched = np.stack([together.act(scene) for scene in scenes], 1)
    for row in range(5):
        alone = make("nearest_neighbor", BOX, path=demonstrations)
        alone.reset([row])
        own = [alone.act({key: value[[row]] for key, value in scene.items()})[0] for scene in scenes]
        np.testing.assert_array_equal(own, batched[row])


def test_it_says_what_it_misses(demonstrations):
    policy = make("nearest_neighbor", BOX, path=demonstrations)
    policy.reset([0])
    with pytest.raises(ValueError, match="environment_state"):
        policy.act({"agent_pos": np.zeros((1, 2))})
    with pytest.raises(ValueError, match=r"'environment_state': 8}; observed are .* 6}"):
        policy.act({"agent_pos": np.zeros((1, 2)), "environment_state": np.zeros((1, 6))})
    with pytest.raises(ValueError, match=r"acts in \(x, y\); this environment takes 3"):
        make("nearest_neighbor", gymnasium.spaces.Box(-1, 1, (3,)), path=demonstrations)
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        make("nearest_neighbor", BOX, path=demonstrations.parent / "none.safetensors")
    one = np.zeros((1, 2))
    with pytest.raises(ValueError, match=r"two or more points .* \(1, 2\), \(1, 2\), \(1, 2\)"):
        fit_nearest_neighbor({"agent_pos": one, "environment_state": one}, one, [1], demonstrations)


class Pointing:
    """Acts at the environment state that it is given."""

    def reset(self, seeds):
        pass

    def act(self, obs):
        return obs["environment_state"]


def square_images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A dark square on white, and where it is."""
    places = np.random.default_rng(seed).integers(2, 28, (count, 2))
    pixels = np.full((count, 32, 32, 3), 255, np.uint8)
    for image, (row, column) in zip(pixels, places, strict=True):
        image[row - 2 : row + 3, column - 2 : column + 3] = 40
    return pixels, places.astype(np.float32)


@pytest.mark.slow
def test_an_estimator_finds_the_block_and_hides_the_true_state(tmp_path):
    train_state_estimator(*square_images(400, 0), tmp_path / "estimator.safetensors", updates=250, width=16)
    pixels, places = square_images(40, 1)
    policy = EstimatedStatePolicy(Pointing(), tmp_path / "estimator.safetensors")
    policy.reset(range(40))
    pointed = policy.act({"pixels": pixels, "environment_state": np.full((40, 2), -1.0)})
    assert np.abs(pointed - places).mean() < 1.5


def test_a_file_of_another_kind_is_refused(demonstrations):
    with pytest.raises(ValueError, match="holds 'nearest_neighbor'; expected 'state_estimator'"):
        EstimatedStatePolicy(Pointing(), demonstrations)


def test_files_of_earlier_versions_open(demonstrations, tmp_path):
    """Their kinds and weights had other names."""
    train_state_estimator(*square_images(8, 0), tmp_path / "estimator.safetensors", updates=40, width=16)
    about, weights = regression.load(tmp_path / "estimator.safetensors", "state_estimator")
    former = {
        name.replace("features.", "look.").replace("readout.", "say."): value
        for name, value in weights.items()
    }
    assert former.keys() != weights.keys()
    regression.save(former, tmp_path / "eyes.safetensors", about | {"kind": "eyes"})
    pixels, _ = square_images(4, 1)
    acted = []
    for name in ("estimator", "eyes"):
        policy = EstimatedStatePolicy(Pointing(), tmp_path / f"{name}.safetensors")
        policy.reset(range(4))
        acted.append(policy.act({"pixels": pixels}))
    np.testing.assert_array_equal(*acted)
    _, recorded = regression.load(demonstrations, "nearest_neighbor")
    regression.save(recorded, tmp_path / "clone.safetensors", {"kind": "clone"})
    make("nearest_neighbor", BOX, path=tmp_path / "clone.safetensors")
