"""The vector environment against gymnasium's SyncVectorEnv of single ones: same rows, infos and resets."""

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from scd_envs.vector_env import WorldVectorEnv

ID = "scd_world/World-v0"
MODES = list(AutoresetMode)
ENDS = {
    "success_threshold": 0.93,
    "horizon": 12,
}  # rows end at different steps, by success and by the horizon
ENDLESS = {"success_threshold": 1.0, "horizon": 1000}


def make_vec(world, num_envs=6, **kwargs):
    return gymnasium.make_vec(ID, num_envs=num_envs, world=world, **kwargs)


def make_sync(world, mode, num_envs=6, **kwargs):
    singles = [lambda: gymnasium.make(ID, world=world, **kwargs)] * num_envs
    return SyncVectorEnv(singles, autoreset_mode=mode)


def assert_close(ours, theirs):
    """Same structure, shapes and types; pixels within one gray level, other values within 1e-4."""
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_close(ours[key], theirs[key])
    elif isinstance(ours, tuple) or (isinstance(ours, np.ndarray) and ours.dtype == object):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_close(a, b)
    elif isinstance(ours, np.ndarray):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        tolerance = 1 if ours.dtype == np.uint8 else 1e-4
        np.testing.assert_allclose(ours.astype(float), theirs.astype(float), rtol=0, atol=tolerance)
    else:
        assert ours == theirs


@pytest.mark.slow
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP], ids=lambda m: m.name)
@pytest.mark.parametrize("cameras", [("top",), ("top", "wrist")], ids=["one camera", "two cameras"])
def test_autoreset_as_gymnasium_does_it(build_world, actions, mode, cameras):
    world = build_world(cameras=cameras)
    ours, theirs = make_vec(world, autoreset_mode=mode, **ENDS), make_sync(world, mode, **ENDS)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert_close(ours.reset(seed=5), theirs.reset(seed=5))
    ended = np.zeros(6, int)
    for action in actions:
        step = ours.step(action)
        assert_close(step, theirs.step(action))
        ended += step[2] | step[3]
    assert (ended >= 2).all()
    assert len(set(ended)) > 1


@pytest.mark.slow
def test_disabled_autoreset_with_masked_resets_as_gymnasium_does_it(world, actions):
    mode = AutoresetMode.DISABLED
    ours, theirs = make_vec(world, autoreset_mode=mode, **ENDS), make_sync(world, mode, **ENDS)
    assert_close(ours.reset(seed=5), theirs.reset(seed=5))
    for action in actions:
        step = ours.step(action)
        assert_close(step, theirs.step(action))
        if (over := step[2] | step[3]).any():
            assert_close(
                ours.reset(options={"reset_mask": over}), theirs.reset(options={"reset_mask": over.copy()})
            )


@pytest.mark.slow
@pytest.mark.parametrize("num_envs", [1, 3, 6])
def test_a_row_is_a_single_environment_whatever_num_envs_is(world, actions, num_envs):
    envs = make_vec(world, num_envs, **ENDLESS)
    batched = [envs.reset(seed=30)[0]] + [envs.step(action[:num_envs])[0] for action in actions[:20]]
    for row in range(num_envs):
        env = gymnasium.make(ID, world=world, **ENDLESS)
        alone = [env.reset(seed=30 + row)[0]] + [env.step(action[row])[0] for action in actions[:20]]
        for together, single in zip(batched, alone, strict=True):
            assert_close({key: value[row] for key, value in together.items()}, single)


def test_one_row_equals_a_single_environment_to_the_bit(world, actions):
    envs, env = make_vec(world, 1, **ENDLESS), gymnasium.make(ID, world=world, **ENDLESS)
    envs.reset(seed=3)
    env.reset(seed=3)
    for action in actions[:20]:
        together, alone = envs.step(action[:1])[0], env.step(action[0])[0]
        assert data_equivalence({key: value[0] for key, value in together.items()}, alone, exact=True)


@pytest.mark.parametrize("mode", MODES, ids=lambda m: m.name)
def test_equal_seeds_equal_bits(world, actions, mode):
    envs = make_vec(world, autoreset_mode=mode, **ENDS)
    runs = [(envs.reset(seed=2), [envs.step(action) for action in actions[:25]]) for _ in range(2)]
    assert data_equivalence(runs[0], runs[1], exact=True)


def run_frozen(world, actions, **kwargs):
    """30 steps without resets: observation, reward, terminated, truncated and is_success of every step."""
    envs = make_vec(world, autoreset_mode="Disabled", **(ENDS | kwargs))
    envs.reset(seed=5)
    steps = [envs.step(action) for action in actions]
    return envs, steps


def ends_after(world, actions, ended):
    """Ends by which just `ended` of six rows are over after these actions."""
    envs = make_vec(world, **ENDLESS)
    envs.reset(seed=5)
    highest = np.sort(np.max([envs.step(action)[4]["success_probability"] for action in actions], axis=0))
    return {"success_threshold": float(highest[-ended] + highest[-ended - 1]) / 2, "horizon": 1000}


def test_bf16_imagines_nearly_the_same_and_the_state_more_exactly_still(world, actions):
    fp32, bf16 = (make_vec(world, precision=p, **ENDLESS) for p in ("fp32", "bf16"))
    first = [envs.reset(seed=3)[0] for envs in (fp32, bf16)]
    np.testing.assert_array_equal(*(obs["pixels"] for obs in first))
    a, b = (envs.step(actions[0])[0] for envs in (fp32, bf16))
    difference = np.abs(a["pixels"].astype(int) - b["pixels"]).mean()
    assert 0 < difference < 8  # gray levels
    np.testing.assert_allclose(a["agent_pos"], b["agent_pos"], atol=0.1)
    with pytest.raises(ValueError, match="'fp32', 'bf16' or 'auto'; got 'fp16'"):
        make_vec(world, precision="fp16")


def test_finished_rows_freeze(world, actions):
    """LeRobot's evaluation counts the step after the last one: it must change nothing."""
    ends = ends_after(world, actions[:12], ended=3) | {"horizon": 12}
    envs, steps = run_frozen(world, actions, **ends)
    for row in range(6):
        ended = [bool(step[2][row] | step[3][row]) for step in steps]
        last = ended.index(True)
        assert all(ended[last:])
        final = steps[last]
        for obs, reward, terminated, truncated, info in steps[last + 1 :]:
            assert reward[row] == 0
            assert (terminated[row], truncated[row]) == (final[2][row], final[3][row])
            for key, mask in ((k, v) for k, v in info.items() if k.startswith("_")):
                assert mask[row]
                assert info[key[1:]][row] == final[4][key[1:]][row]
            for key in obs:
                np.testing.assert_array_equal(obs[key][row], final[0][key][row])
            np.testing.assert_array_equal(envs.render()[row], final[0]["pixels"][row])
    assert {bool(step) for step in steps[-1][4]["is_success"]} == {True, False}


def test_finished_rows_leave_the_batch_and_come_back(world, actions):
    """Two that had left and one that had not begin anew together; what stayed goes on undisturbed."""
    ends = ends_after(world, actions[:9], ended=3)
    envs, _ = run_frozen(world, actions[:9], **ends)
    members = envs.episodes.state.members
    assert len(members) == 3
    absent = np.setdiff1d(np.arange(6), members)
    again, stayed = [*absent[:2], members[0]], members[1:]
    seeds = list(range(100, 106))
    mask = np.isin(np.arange(6), again)
    _, infos = envs.reset(seed=seeds, options={"reset_mask": mask})
    np.testing.assert_array_equal(infos["_is_success"], mask)

    singles = {row: gymnasium.make(ID, world=world, **ends) for row in [*again, *stayed]}
    for row in again:
        singles[row].reset(seed=seeds[row])
    for row in stayed:
        singles[row].reset(seed=5 + int(row))
        for action in actions[:9]:
            singles[row].step(action[row])
    for action in actions[9:15]:
        obs, reward, *_ = envs.step(action)
        for row, env in list(singles.items()):
            alone = env.step(action[row])
            assert_close({key: value[row] for key, value in obs.items()}, alone[0])
            assert abs(reward[row] - alone[1]) < 1e-4
            if alone[2]:
                del singles[row]
    assert singles


def test_where_steps_are_recorded_the_batch_has_few_sizes(world):
    """On a GPU each size is recorded and kept: of 64 rows that ended one by one, dozens were."""
    action = np.tile(np.mean(world.schema.action_bounds, axis=0, dtype=np.float32), (16, 1))
    few, all_of_them = (make_vec(world, 16, autoreset_mode="Disabled", **ENDLESS) for _ in range(2))
    few.unwrapped.episodes.records_steps = True
    sizes = []
    for envs in (few, all_of_them):
        envs.reset(seed=1)
        envs.step(action)
    for row in range(15):  # one after another is over
        for envs in (few, all_of_them):
            envs.unwrapped.episodes.state.truncated[row] = True
        few.unwrapped.episodes.drop_finished()
        sizes.append(len(few.unwrapped.episodes.state.members))
        assert_close(few.step(action)[0], all_of_them.step(action)[0])
    assert set(sizes) == {16, 8, 4, 2, 1}


def test_finished_rows_may_send_anything(world, actions):
    envs, steps = run_frozen(world, actions[:12])
    assert (steps[-1][2] | steps[-1][3]).all()
    obs, *_ = envs.step(np.full((6, 2), np.nan))
    np.testing.assert_array_equal(obs["pixels"], steps[-1][0]["pixels"])


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES, ids=lambda m: m.name)
def test_branches_go_on_to_the_bit(world, actions, mode):
    envs = make_vec(world, autoreset_mode=mode, **ENDS)
    envs.reset(seed=5)
    for action in actions[:9]:
        envs.step(action)
    saved = envs.get_state()
    first = [envs.step(action) for action in actions[9:25]]
    for _ in range(2):
        envs.set_state(saved)
        again = [envs.step(action) for action in actions[9:25]]
        assert data_equivalence(first, again, exact=True)
    other = make_vec(world, autoreset_mode=mode, **ENDS)
    other.set_state(saved)
    assert data_equivalence(first, [other.step(action) for action in actions[9:25]], exact=True)
    with pytest.raises(ValueError, match="6 rows"):
        make_vec(world, 3).set_state(saved)


def test_a_masked_reset_touches_no_other_row(world, actions):
    runs = []
    for masked in (False, True):
        envs = make_vec(world, 4, autoreset_mode="Disabled", **ENDLESS)
        envs.reset(seed=0)
        for step, action in enumerate(actions[:12]):
            if masked and step == 6:
                options = {"reset_mask": np.array([False, True, False, False]), "episode": 5, "frame": 3}
                obs, infos = envs.reset(options=options)
                np.testing.assert_array_equal(obs["pixels"][1], world.starts.get(5, 3).pixels[-1, 0])
                np.testing.assert_array_equal(infos["_start_frame"], options["reset_mask"])
            steps = envs.step(action[:4])
        runs.append(steps[0])
    for row in (0, 2, 3):
        assert_close(*({key: value[row] for key, value in obs.items()} for obs in runs))
    assert (runs[0]["pixels"][1] != runs[1]["pixels"][1]).any()


def test_every_row_may_have_its_own_start(world):
    envs = make_vec(world, 3)
    obs, infos = envs.reset(seed=0, options={"episode": [3, 8, 3], "frame": [10, 0, 2]})
    for row, address in enumerate([(3, 10), (8, 0), (3, 2)]):
        np.testing.assert_array_equal(obs["pixels"][row], world.starts.get(*address).pixels[-1, 0])
        assert (infos["start_episode"][row], infos["start_frame"][row]) == address
    with pytest.raises(ValueError, match="3 of them"):
        envs.reset(options={"episode": [3, 8]})


def test_what_lerobot_asks_for(world, build_world):
    envs = make_vec(world, 3, autoreset_mode=AutoresetMode.DISABLED)
    envs.reset(seed=[4, 5, 6], options={"lerobot_new_rollout": True})
    assert envs.call("_max_episode_steps") == (20, 20, 20)
    assert envs.call("task_description") == ("push the block",) * 3
    frames = envs.call("render")
    assert [(p.shape, p.dtype) for p in frames] == [((16, 24, 3), np.uint8)] * 3
    assert envs.unwrapped.metadata["render_fps"] == 10
    assert isinstance(envs.metadata["autoreset_mode"], AutoresetMode)
    assert envs.call("task") == envs.call("task_description")
    with pytest.raises(AttributeError, match="no task"):
        make_vec(build_world(tasks=()), 2).call("task_description")


@pytest.mark.parametrize(
    "name", ["_max_episode_steps", "task_description", "task", "action_space", "observation_space"]
)
def test_get_attr_as_sync_vector_env_has_it(world, name):
    ours, theirs = make_vec(world, 2), make_sync(world, AutoresetMode.NEXT_STEP, 2)
    assert ours.get_attr(name) == theirs.get_attr(name)
    for envs in (ours, theirs):
        envs.reset(seed=11)
    assert ours.get_attr("np_random_seed") == theirs.get_attr("np_random_seed") == (11, 12)


def test_observations_are_the_callers_own(world, actions):
    envs = make_vec(world, 4, autoreset_mode="Disabled", **ENDLESS)
    envs.reset(seed=0)
    expected = [envs.step(action[:4])[0]["pixels"].copy() for action in actions[:3]]
    envs.reset(seed=0)
    for action, pixels in zip(actions[:3], expected, strict=True):
        obs, *rest, _ = envs.step(action[:4])
        np.testing.assert_array_equal(obs["pixels"], pixels)
        for array in (*obs.values(), *rest):
            array[:] = 1


def test_memory_of_the_cache_is_flat(world, actions):
    envs = make_vec(world, 6, success_threshold=0.93, horizon=12)
    envs.reset(seed=0)
    sizes = {envs.episodes.state.rollout.cache.nbytes for _ in range(60) if envs.step(actions[_ % 30])}
    assert len(sizes) == 1


def test_closing_twice_is_fine_and_using_it_then_is_not(world):
    envs = make_vec(world, 2)
    envs.reset(seed=0)
    envs.close()
    envs.close()
    with pytest.raises(ClosedEnvironmentError, match="closed"):
        envs.step(np.zeros((2, 2)))


def test_stepping_before_reset_says_so(world):
    envs = make_vec(world, 2)
    mask = {"reset_mask": np.array([True, False])}
    for call in (
        lambda: envs.step(np.zeros((2, 2))),
        envs.render,
        envs.get_state,
        lambda: envs.reset(options=mask),
    ):
        with pytest.raises(ResetNeeded, match=r"reset\(\)"):
            call()


BAD_CALLS = {
    "too few rows": (lambda e: e.step(np.zeros((1, 2))), ValueError, r"\(2, 2\).*\(1, 2\)"),
    "NaN": (lambda e: e.step([[0, 0], [np.nan, 0]]), ValueError, r"row 1, dimension 0 \('dx'\).*not finite"),
    "far outside": (
        lambda e: e.step([[0, 9], [0, 0]]),
        ValueError,
        r"row 0, dimension 1 \('dy'\).*clip_actions",
    ),
    "two seeds of three": (lambda e: e.reset(seed=[1, 2, 3]), ValueError, "2 rows; got 3"),
    "a list as mask": (lambda e: e.reset(options={"reset_mask": [True, False]}), TypeError, "numpy array"),
    "tasks of a number": (lambda e: e.reset(options={"task": 5}), ValueError, "'task' is one task.*2 rows"),
    "tasks of numbers": (
        lambda e: e.reset(options={"task": [5, 6]}),
        ValueError,
        "not trained on the task 5",
    ),
    "an empty mask": (lambda e: e.reset(options={"reset_mask": np.zeros(2, bool)}), ValueError, "one True"),
    "a foreign attribute": (lambda e: e.call("kinematics"), AttributeError, "'kinematics'"),
}


@pytest.mark.parametrize(("call", "error", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_calls_say_what_is_wrong(world, call, error, message):
    envs = make_vec(world, 2)
    envs.reset(seed=0)
    with pytest.raises(error, match=message):
        call(envs)
    envs.step(np.zeros((2, 2)))  # and nothing was lost


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_envs": 0}, "num_envs must be a whole number ≥ 1; got 0"),
        ({"num_envs": "2"}, "num_envs must be a whole number ≥ 1; got '2'"),
        ({"num_envs": 2.5}, "num_envs must be a whole number ≥ 1; got 2.5"),
        ({"autoreset_mode": "never"}, r"autoreset_mode is one of \['NextStep', .*; got 'never'"),
    ],
)
def test_arguments_of_a_wrong_kind_are_named(world, kwargs, message):
    with pytest.raises(ValueError, match=message):
        WorldVectorEnv(world, **kwargs)


def test_max_episode_steps_is_the_horizon_in_make_vec_too(world):
    envs = make_vec(world, 2, max_episode_steps=3)
    assert envs.unwrapped.episodes.horizon == 3
    with pytest.raises(ValueError, match="give one of them"):
        make_vec(world, 2, max_episode_steps=3, horizon=4)


@pytest.mark.parametrize("start", [{}, {"episode": 8, "frame": 3}])
def test_a_row_that_imagines_no_number_harms_no_other_and_a_reset_cures_it(world, start):
    """Its memory went on saying NaN to whoever began there, and the others lost a frame."""
    actions = np.tile(np.mean(world.schema.action_bounds, axis=0, dtype=np.float32), (3, 1))
    expected, envs = (make_vec(world, 3, autoreset_mode=AutoresetMode.DISABLED, **ENDLESS) for _ in range(2))
    for each in (expected, envs):
        each.reset(seed=3)
        each.step(actions)
    envs.unwrapped.episodes.state.rollout.state[1] = np.nan
    with pytest.raises(FloatingPointError, match=r"state of rows \[1\] is not finite"):
        envs.step(actions)
    expected.step(actions)  # the others have taken theirs
    assert envs.unwrapped.episodes.finished.tolist() == [False, True, False]
    mask = np.array([False, True, False])
    for each in (expected, envs):
        each.reset(seed=[None, 5, None], options=start | {"reset_mask": mask})
    for _ in range(4):
        assert data_equivalence(expected.step(actions), envs.step(actions))


def test_success_is_what_it_was_when_a_row_ended(world):
    """A threshold that changes later ended no row at rest."""
    envs = make_vec(world, 2, success_threshold=1.0, horizon=1, autoreset_mode=AutoresetMode.DISABLED)
    envs.reset(seed=0)
    envs.step(np.tile(np.mean(world.schema.action_bounds, axis=0, dtype=np.float32), (2, 1)))
    envs.unwrapped.set_attr("success_threshold", 0.0)
    assert not envs.unwrapped.episodes.columns()["is_success"].any()


def test_bad_arguments_say_what_is_wrong(world, tmp_path):
    with pytest.raises(ValueError, match=r"num_envs.*0"):
        WorldVectorEnv(world, num_envs=0)
    with pytest.raises(TypeError, match=r"'horzon'.*Did you mean 'horizon'"):
        make_vec(world, 2, horzon=3)
    with pytest.raises(ValueError, match="never"):
        make_vec(world, 2, autoreset_mode="never")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        make_vec(tmp_path / "nowhere", 2)
