"""Simulators side by side: each row is what it would be alone, and a finished one freezes."""

import numpy as np
import pytest

pytest.importorskip("gym_pusht")

from scd_envs.simulators import make
from scd_envs.simulators.vector import SimulatorVectorEnv, stacked


def test_rows_are_what_they_would_be_alone():
    batch, alone = SimulatorVectorEnv("pendulum", 2, max_episode_steps=5), make("pendulum")
    obs, _ = batch.reset(seed=[3, 4])
    one, _ = alone.reset(seed=4)
    np.testing.assert_array_equal(obs["pixels"][1], one["pixels"])
    for torque in (0.5, -1.0):
        obs, reward, *_ = batch.step(np.array([[0.0], [torque]]))
        one, its_reward, *_ = alone.step(np.array([torque]))
        np.testing.assert_array_equal(obs["agent_pos"][1], one["agent_pos"])
        assert reward[1] == its_reward


def test_rows_have_seeds_of_their_own_as_gymnasium_says():
    batch = SimulatorVectorEnv("pendulum", 2)
    together, _ = batch.reset(seed=3)
    explicit, _ = batch.reset(seed=[3, 4])
    np.testing.assert_array_equal(together["agent_pos"], explicit["agent_pos"])


def test_it_is_known_whether_success_is_ever_reported():
    for name, action in (("pendulum", [[0.0]]), ("pusht", [[100.0, 100.0]])):
        batch = SimulatorVectorEnv(name, 1, **({"render_images": False} if name == "pusht" else {}))
        batch.reset(seed=0)
        batch.step(np.array(action))
        assert batch.reports_success == (name == "pusht")


def test_a_finished_row_freezes_until_it_is_reset():
    batch = SimulatorVectorEnv("pusht", 2, max_episode_steps=3, render_images=False)
    batch.reset(seed=[0, 1])
    for _ in range(3):
        last, _, terminated, truncated, _ = batch.step(np.array([[10.0, 10.0], [500.0, 500.0]]))
    assert truncated.all()
    assert not terminated.any()
    assert "pixels" not in last
    frozen, reward, _, truncated, _ = batch.step(np.array([[500.0, 10.0], [10.0, 500.0]]))
    np.testing.assert_array_equal(frozen["agent_pos"], last["agent_pos"])
    assert (reward == 0).all()
    assert truncated.all()

    again, _ = batch.reset(options={"reset_mask": np.array([False, True]), "agent_pos": [100, 120]})
    np.testing.assert_array_equal(again["agent_pos"], [last["agent_pos"][0], [100, 120]])
    after, _, _, truncated, _ = batch.step(np.array([[500.0, 10.0], [200.0, 200.0]]))
    np.testing.assert_array_equal(truncated, [True, False])
    np.testing.assert_array_equal(after["agent_pos"][0], last["agent_pos"][0])
    assert (after["agent_pos"][1] > [100, 120]).all()


def test_a_start_that_is_not_taken_is_refused():
    """Gymnasium's own environments pass over reset's options."""
    batch = SimulatorVectorEnv("Pendulum-v1", 1, size=16)
    batch.reset(seed=0)
    with pytest.raises(ValueError, match=r"asked to start with agent_pos.*is at"):
        batch.reset(seed=0, options={"agent_pos": [1.0, 0.0, 0.0]})
    batch.close()


def test_several_cameras_are_stacked_one_by_one():
    rows = [
        {"pixels": {"a": np.full((2, 2, 3), i), "b": np.zeros((2, 3, 3))}, "x": np.ones(4)} for i in range(3)
    ]
    found = stacked(rows)
    assert {name: camera.shape for name, camera in found["pixels"].items()} == {
        "a": (3, 2, 2, 3), "b": (3, 2, 3, 3),
    }  # fmt: skip
    assert found["pixels"]["a"][2].max() == 2
    assert found["x"].shape == (3, 4)
