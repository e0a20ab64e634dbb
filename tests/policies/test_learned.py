"""Clones and eyes learn what they are shown, and do it again after loading."""

import gymnasium
import numpy as np
import pytest

from scd_policies import make
from scd_policies.clone import learn_clone
from scd_policies.eyes import Eyes, learn_eyes

BOX = gymnasium.spaces.Box(-1, 1, (2,), np.float32)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """Of a policy that moves away from the block."""
    path = tmp_path_factory.mktemp("clone") / "clone.safetensors"
    rng = np.random.default_rng(0)
    state = {name: rng.uniform(-1, 1, (2000, 2)) for name in ("agent_pos", "environment_state")}
    action = (state["agent_pos"] - state["environment_state"]) / 2
    assert learn_clone(state, action, path, updates=300, width=64) < 0.1
    return path


def test_a_clone_does_what_it_was_shown(clone):
    rng = np.random.default_rng(1)
    obs = {name: rng.uniform(-1, 1, (50, 2)) for name in ("agent_pos", "environment_state")}
    policy = make("clone", BOX, path=clone)
    policy.reset(range(50))
    shown = (obs["agent_pos"] - obs["environment_state"]) / 2
    assert np.abs(policy.act(obs) - shown).mean() < 0.1


def test_a_clone_says_what_it_misses(clone):
    policy = make("clone", BOX, path=clone)
    policy.reset([0])
    with pytest.raises(ValueError, match="environment_state"):
        policy.act({"agent_pos": np.zeros((1, 2))})
    with pytest.raises(ValueError, match="acts in 2 numbers; this environment takes 3"):
        make("clone", gymnasium.spaces.Box(-1, 1, (3,)), path=clone)
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        make("clone", BOX, path=clone.parent / "none.safetensors")


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
    learn_eyes(*pictures(400, 0), tmp_path / "eyes.safetensors", updates=250, width=16)
    pixels, places = pictures(40, 1)
    policy = Eyes(Pointing(), tmp_path / "eyes.safetensors")
    policy.reset(range(40))
    pointed = policy.act({"pixels": pixels, "environment_state": np.full((40, 2), -1.0)})
    assert np.abs(pointed - places).mean() < 1.5


def test_a_file_of_another_kind_is_refused(clone):
    with pytest.raises(ValueError, match="holds 'clone'; expected 'eyes'"):
        Eyes(Pointing(), clone)
