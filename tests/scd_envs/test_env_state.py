"""A saved state goes back whole or not at all: one bad row is named, and no row was changed."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence

from scd_envs.env_state import EnvState
from scd_envs.vector_env import WorldVectorEnv
from scd_envs.world_env import WorldEnv
from scd_world.prior.config import PriorConfig

NAN = float("nan")
ENDLESS = {"success_threshold": 1.0, "horizon": 1000}


@pytest.fixture
def envs(world, actions) -> WorldVectorEnv:
    envs = WorldVectorEnv(world, 3, **ENDLESS)
    envs.reset(seed=0)
    envs.step(actions[0, :3])
    return envs


def in_batch(**changes: Callable[[Any], Any]) -> Callable[[EnvState], EnvState]:
    def change(state: EnvState) -> EnvState:
        new = {name: make(getattr(state.batch, name)) for name, make in changes.items()}
        return replace(state, batch=replace(state.batch, **new))

    return change


def in_rollout(**changes: Callable[[Any], Any]) -> Callable[[EnvState], EnvState]:
    return in_batch(rollout=lambda s: replace(s, **{n: make(getattr(s, n)) for n, make in changes.items()}))


def spoilt(value: float, row: int = 1, dim: int = 0) -> Callable[[Any], Any]:
    """A copy of an array or tensor with `value` in one row."""

    def make(array: Any) -> Any:
        copy = array.copy() if isinstance(array, np.ndarray) else array.clone()
        (copy if dim == 0 else copy.transpose(0, dim))[row] = value
        return copy

    return make


def with_keys_of_nan(cache: Any) -> Any:
    copy = cache.clone()
    copy.keys[:, 2, 0, 0, 0, 0] = NAN
    return copy


def with_other_keys(cache: Any) -> Any:
    copy = cache.clone()
    copy.keys = copy.keys[..., :1]
    return copy


def rng_of_row_1(saved: Any) -> Callable[[EnvState], EnvState]:
    return lambda s: replace(s, rng_states=[s.rng_states[0], saved, s.rng_states[2]])


BAD = {
    "a frame of NaN": (in_rollout(obs=spoilt(NAN)), ValueError, "row 1 of the state: its obs is not finite"),
    "an infinite state": (in_rollout(state=spoilt(float("inf"))), ValueError, "row 1 .* state is not finite"),
    "a previous state of NaN": (in_rollout(prev=spoilt(NAN, 2)), ValueError, "row 2 .* prev is not finite"),
    "an ensemble of NaN": (in_rollout(ensemble=spoilt(NAN)), ValueError, "row 1 .* ensemble is not finite"),
    "a reward of NaN": (in_batch(reward=spoilt(NAN)), ValueError, "row 1 .* reward is not finite"),
    "a memory of NaN": (in_rollout(cache=with_keys_of_nan), ValueError, "row 2 .* keys is not finite"),
    "another memory": (
        in_rollout(cache=with_other_keys),
        ValueError,
        r"keys is torch.float32 of shape .*, 1\)",
    ),
    "no memory": (in_rollout(cache=lambda _: None), ValueError, "memory is NoneType; expected RingKVCache"),
    "a row less": (
        in_rollout(obs=lambda x: x[:2]),
        ValueError,
        r"obs is .*\(2, 3, 16, 24\) .*expected .*\(3, 3,",
    ),
    "half a state": (
        in_batch(state=lambda x: x[:, :1]),
        ValueError,
        r"state is .*\(3, 1\); expected .*\(3, 3\)",
    ),
    "frames of reals": (
        in_batch(pixels=lambda x: x / 1.0),
        ValueError,
        r"pixels is torch.float32 of .*expected torch.uint8",
    ),
    "numbers in a list": (in_batch(steps=list), ValueError, r"steps is \[.*\]; expected int64"),
    "an unknown task": (in_batch(tasks=spoilt(9)), ValueError, "row 1 .* tasks is none of 1"),
    "an unknown task of the model": (in_rollout(task=spoilt(9)), ValueError, "row 1 .* task is none of 1"),
    "no rollout": (in_batch(rollout=lambda _: 3), TypeError, "rollout is 3; expected RolloutState"),
    "a negative step": (in_batch(steps=spoilt(-1)), ValueError, "row 1 .* steps is negative"),
    "a row twice": (
        in_batch(members=spoilt(0)),
        ValueError,
        "members are .*expected some of 3 rows, each once",
    ),
    "a dict of rows": (lambda s: replace(s, batch={}), TypeError, "batch is {}; expected BatchState"),
    "two generators": (lambda s: replace(s, rng_states=s.rng_states[:2]), ValueError, "a state of 2 rows"),
    "no generator": (rng_of_row_1(None), ValueError, "row 1: its random generator's state is None"),
    "another generator": (rng_of_row_1(np.random.MT19937(0).state), ValueError, "row 1: .*expected PCG64's"),
    "half a generator": (rng_of_row_1({"bit_generator": "PCG64"}), ValueError, "row 1: its random generator"),
    "another world": (lambda s: replace(s, world="0"), ValueError, "a state of another world"),
    "a number": (lambda s: 3, TypeError, "set_state takes what get_state returned; got int"),
}


@pytest.mark.parametrize(("change", "error", "message"), BAD.values(), ids=BAD)
def test_a_bad_row_is_named_and_no_row_is_changed(envs, actions, change, error, message):
    saved = envs.get_state()
    envs.step(actions[1, :3])
    before = envs.get_state()
    with pytest.raises(error, match=message):
        envs.set_state(change(saved))
    assert envs.get_state().rng_states == before.rng_states
    went_on = envs.step(actions[2, :3])
    envs.set_state(before)
    assert data_equivalence(went_on, envs.step(actions[2, :3]), exact=True)
    envs.set_state(saved)  # which none of this has touched


@pytest.mark.parametrize("change", [in_rollout(obs=spoilt(NAN, 0)), lambda s: replace(s, rng_states=[{}])])
def test_the_single_environment_alike(world, actions, change):
    env = WorldEnv(world, **ENDLESS)
    env.reset(seed=0)
    saved = env.get_state()
    with pytest.raises(ValueError, match="row 0"):
        env.set_state(change(saved))
    step = env.step(actions[0, 0])
    env.set_state(saved)
    assert data_equivalence(step, env.step(actions[0, 0]), exact=True)


@pytest.mark.parametrize(
    "changes", [{"prior": PriorConfig(kind="none")}, {"agent_pos": (), "environment_state": ()}]
)
def test_a_state_that_knows_no_uncertainty_is_sound(build_world, actions, changes):
    """Its uncertainty is NaN, and an ensemble of nobody has no numbers."""
    envs = WorldVectorEnv(
        build_world(**changes), 2, autoreset_mode="Disabled", success_threshold=1.0, horizon=2
    )
    envs.reset(seed=0)
    envs.step(actions[0, :2])
    saved = pickle.loads(pickle.dumps(envs.get_state()))
    step = envs.step(actions[1, :2])
    envs.set_state(saved)
    assert data_equivalence(step, envs.step(actions[1, :2]), exact=True)


def test_a_state_whose_finished_rows_have_left_the_batch_is_sound(world, actions):
    envs = gymnasium.make_vec(
        "scd_world/World-v0",
        num_envs=6,
        world=world,
        autoreset_mode="Disabled",
        success_threshold=0.9,
        horizon=30,
    )
    envs.reset(seed=5)
    for action in actions:
        envs.step(action)
        saved = envs.unwrapped.get_state()
        envs.unwrapped.set_state(saved)
        if len(saved.batch.members) < 6:
            return
    raise AssertionError("no row left the batch: the test needs other weights")
