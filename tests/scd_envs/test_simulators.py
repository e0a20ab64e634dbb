"""Simulators: gymnasium's contract, determinism, exact resets, images that show what they should."""

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from scd_envs import simulators

pytest.importorskip("gym_pusht")

NAMES = ("pusht", "pendulum")


def play(env, seed, steps=15):
    actions = np.random.default_rng(seed)
    observed = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        low, high = env.action_space.low, env.action_space.high
        observed.append(env.step(actions.uniform(low, high).astype(np.float32))[0])
    return observed


@pytest.mark.parametrize("name", [*NAMES, "panning_camera"])
def test_it_keeps_gymnasiums_contract(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*symmetric and normalized")  # raw units on purpose
        check_env(simulators.make(name).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("name", [*NAMES, "panning_camera"])
def test_one_seed_one_episode(name):
    env = simulators.make(name)
    first, again, other = play(env, 3), play(simulators.make(name), 3), play(env, 4)
    for one, two in zip(first, again, strict=True):
        for key, value in one.items():
            np.testing.assert_array_equal(value, two[key])
    assert not np.array_equal(first[0]["agent_pos"], other[0]["agent_pos"])


@pytest.mark.parametrize("name", NAMES)
def test_reset_to_any_observed_state_is_exact(name):
    """gym-pusht's own reset_to_state moves the block and pushes overlapping bodies apart."""
    env = simulators.make(name)
    for obs in play(env, 1, steps=60):
        state = {key: value for key, value in obs.items() if key != "pixels"}
        again, _ = env.reset(seed=5, options=state)
        for key, value in state.items():
            np.testing.assert_allclose(again[key], value, atol=1e-3)
        differs = np.abs(again["pixels"].astype(int) - obs["pixels"]) > 8
        assert (
            differs.mean() < 0.002
        )  # gym-pusht marks touching points in red; before the first step there are none


@pytest.mark.parametrize("name", NAMES)
def test_it_truncates_and_gives_its_rate(name):
    env = simulators.make(name, max_episode_steps=2)
    env.reset(seed=0)
    flags = [env.step(env.action_space.sample())[3] for _ in range(2)]
    assert flags == [False, True]
    assert isinstance(env.metadata["render_fps"], int)


def test_pusht_draws_what_gym_pusht_draws():
    from gym_pusht.envs.pusht import PushTEnv

    ours, theirs = simulators.make("pusht"), PushTEnv(obs_type="pixels_agent_pos")
    obs, expected = ours.reset(seed=2)[0], theirs.reset(seed=2)[0]
    for action in np.random.default_rng(0).uniform(0, 512, (5, 2)):
        np.testing.assert_array_equal(obs["pixels"], expected["pixels"])
        np.testing.assert_allclose(obs["agent_pos"], expected["agent_pos"], atol=1e-4)
        obs, expected = ours.step(action)[0], theirs.step(action)[0]


def test_pusht_at_the_goal_succeeds():
    from scd_envs.simulators.pusht import GOAL_POSE, block_keypoints

    env = simulators.make("pusht")
    start = {"agent_pos": [40, 40], "environment_state": block_keypoints(GOAL_POSE)}
    env.reset(options=start)
    _, reward, terminated, _, info = env.step(np.array([40, 40]))
    assert (reward, terminated, info["is_success"]) == (1.0, True, True)


def test_block_pose_is_a_rigid_fit():
    from scd_envs.simulators.pusht import block_keypoints, block_pose

    pose = np.random.default_rng(0).uniform([0, 0, -3.1], [512, 512, 3.1], (4, 5, 3))
    np.testing.assert_allclose(block_pose(block_keypoints(pose)), pose, atol=1e-9)
    noisy = block_keypoints(pose) + np.random.default_rng(1).normal(0, 0.5, (4, 5, 16))
    assert np.abs(block_pose(noisy) - pose).max() < 2


def test_pendulum_shows_the_angle_and_nothing_else():
    env = simulators.make("pendulum")
    up = env.reset(options={"agent_pos": [1, 0, 0]})[0]["pixels"]
    fast = env.reset(options={"agent_pos": [1, 0, 5]})[0]["pixels"]
    down = env.reset(options={"agent_pos": [-1, 0, 0]})[0]["pixels"]
    left = env.reset(options={"agent_pos": [0, 1, 0]})[0]["pixels"]
    np.testing.assert_array_equal(up, fast)
    np.testing.assert_array_equal(up, down[::-1])
    np.testing.assert_allclose(up.astype(int), np.rot90(left, -1), atol=1)
    assert up.shape == (32, 32, 3)
    assert 0.05 < (up < 250).any(-1).mean() < 0.4


def test_pendulum_is_pendulum_v1():
    ours, theirs = simulators.make("pendulum"), gymnasium.make("Pendulum-v1")
    obs, _ = ours.reset(seed=0)
    theirs.reset(seed=0)
    theirs.unwrapped.state = ours.unwrapped._physics.state.copy()
    for torque in np.linspace(-2, 2, 5, dtype=np.float32):
        obs, reward, *_ = ours.step(np.array([torque]))
        expected, expected_reward, *_ = theirs.step(np.array([torque]))
        np.testing.assert_allclose(obs["agent_pos"], expected, atol=1e-6)
        assert reward == pytest.approx(float(expected_reward))


def test_any_other_environment_is_adapted():
    env = simulators.make("MountainCarContinuous-v0", size=24)
    obs, _ = env.reset(seed=0)
    assert obs["pixels"].shape == (24, 24, 3)
    assert obs["agent_pos"].dtype == np.float32
    assert env.observation_space.contains(obs)
    assert env.metadata["render_fps"] == 30


@pytest.mark.parametrize(("fps", "shown"), [(12.5, 12), (29.97, 30), (0.4, 1), (30, 30)])
def test_a_rate_keeps_its_fraction(fps, shown):
    """Rounded, a recording's clock is off by some percent, and .4 is none."""
    metadata = simulators.make("MountainCarContinuous-v0", size=24, fps=fps).metadata
    assert (metadata["fps"], metadata["render_fps"]) == (fps, shown)
    assert isinstance(metadata["render_fps"], int)


def test_what_cannot_be_adapted_is_named():
    with pytest.raises(ValueError, match="its action is Discrete"):
        simulators.make("CartPole-v1", size=24)
    with pytest.raises(ValueError, match="expected a uint8"):
        simulators.make("FrozenLake-v1")
    with pytest.raises(ValueError, match="expected a vector"):
        simulators.make("FrozenLake-v1", render_images=False)


@pytest.mark.parametrize("name", [*NAMES, "panning_camera", "MountainCarContinuous-v0"])
def test_unrendered_it_is_the_same_without_its_images(name):
    rendered, unrendered = simulators.make(name), simulators.make(name, render_images=False)
    rendered.action_space.seed(0)
    (obs, _), (states, _) = rendered.reset(seed=3), unrendered.reset(seed=3)
    for _ in range(5):
        assert "pixels" not in states
        assert unrendered.observation_space.contains(states)
        assert all(np.array_equal(obs[key], value) for key, value in states.items())
        action = rendered.action_space.sample()
        obs, states = rendered.step(action)[0], unrendered.step(action)[0]


def test_wrong_states_and_actions_are_named():
    pusht, pendulum = simulators.make("pusht"), simulators.make("pendulum")
    pusht.reset(seed=0)
    with pytest.raises(ValueError, match="environment_state"):
        pusht.reset(options={"environment_state": np.zeros(4)})
    with pytest.raises(ValueError, match="cannot reset to"):
        pusht.reset(options={"state": np.zeros(5)})
    with pytest.raises(ValueError, match="action"):
        pusht.step(np.array([np.nan, 0]))
    with pytest.raises(ValueError, match="cos"):
        pendulum.reset(options={"agent_pos": [0, 0, 0]})


def test_importing_scd_envs_is_light():
    code = "import sys, scd_envs.simulators; print({'pymunk', 'pygame', 'cv2', 'lerobot'} & set(sys.modules))"
    heavy = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert heavy.strip() == "set()"


def test_what_a_panning_camera_saw_is_there_when_it_comes_back():
    env = simulators.make("panning_camera")
    obs, _ = env.reset(seed=1, options={"agent_pos": [0.3]})
    away = [env.step([1.0])[0] for _ in range(10)]
    assert (
        away[0]["pixels"][:, :-6] == np.roll(obs["pixels"], -6, 1)[:, :-6]
    ).mean() > 0.9  # .12 of 48 columns
    assert (away[-1]["pixels"] != obs["pixels"]).mean() > 0.2
    back = [env.step([-1.0])[0] for _ in range(10)][-1]
    np.testing.assert_allclose(back["agent_pos"], obs["agent_pos"], atol=1e-6)
    assert (back["pixels"] == obs["pixels"]).all()
    other, _ = env.reset(seed=2, options={"agent_pos": [0.3]})
    assert (other["pixels"] != obs["pixels"]).any()


def test_a_panning_camera_names_wrong_places_and_actions():
    env = simulators.make("panning_camera")
    env.reset(seed=0)
    with pytest.raises(ValueError, match="0 to 2"):
        env.reset(options={"agent_pos": [2.5]})
    with pytest.raises(ValueError, match="only reset option"):
        env.reset(options={"place": [1.0]})
    with pytest.raises(ValueError, match="finite speed"):
        env.step(np.array([np.nan]))


@pytest.mark.parametrize("name", ["Foo-v9", "Pendulum-v99", "nowhere:Foo-v1"])
def test_an_environment_that_is_not_there_is_refused_with_those_that_are(name):
    with pytest.raises(ValueError, match=rf"no environment '{name}': .* There are pusht, pendulum, so101, "):
        simulators.make(name)
