"""The single environment: Gymnasium's contract, seeds, resets to a recorded frame, saving and branching."""

import gc
import warnings
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import psutil
import pytest
import torch
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.utils.env_checker import check_env, data_equivalence

import scd_envs
from scd_envs.vector_env import WorldVectorEnv
from scd_envs.world_env import WorldEnv
from scd_world.prior.config import PriorConfig
from scd_world.world.starts import StartStates
from scd_world.world.world import World
from tests.scd_envs.conftest import TINY

SINGLE = "scd_world/World-v0"
SCHEMAS = {
    "one camera": {},
    "two cameras": {"cameras": ("top", "wrist")},
    "pixels alone": {"agent_pos": (), "environment_state": ()},
    "no reward, no success": {"reward": False, "success": False, "environment_state": ()},
}


def make(world, **kwargs):
    return gymnasium.make(SINGLE, world=world, **kwargs)


def play(env, actions):
    return [env.step(action) for action in actions]


def same(a, b) -> bool:
    return data_equivalence(a, b, exact=True)


@pytest.mark.parametrize("changes", SCHEMAS.values(), ids=SCHEMAS)
def test_check_env_without_a_warning(build_world, changes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(build_world(**changes)).unwrapped)


def test_raw_units_are_all_that_check_env_would_rather_not_see(build_world):
    world = build_world(action_low=(0.0, 0.0), action_high=(512.0, 512.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*we recommend using a symmetric and normalized space")
        check_env(make(world).unwrapped)


@pytest.mark.parametrize("changes", SCHEMAS.values(), ids=SCHEMAS)
def test_observation_has_the_keys_of_the_data(build_world, changes):
    world = build_world(**changes)
    env = make(world)
    obs, _ = env.reset(seed=0)
    cameras = obs["pixels"].values() if len(world.schema.cameras) > 1 else [obs["pixels"]]
    assert [(c.shape, c.dtype) for c in cameras] == [((16, 24, 3), np.uint8)] * len(world.schema.cameras)
    assert set(obs) - {"pixels"} == {
        k for k in ("agent_pos", "environment_state") if getattr(world.schema, k)
    }
    assert env.render().shape == (16, 24 * len(world.schema.cameras), 3)
    assert env.metadata["render_fps"] == 10


def test_a_rate_that_is_no_whole_number_is_rounded_where_gymnasium_wants_one(build_world):
    assert make(build_world(fps=29.97)).metadata["render_fps"] == 30
    assert make(build_world(fps=0.4)).metadata["render_fps"] == 1


def test_the_metadata_says_how_images_were_made(build_world):
    assert make(build_world()).metadata["views"] == {"top": (0, 0, 16, 24)}
    boxed = make(build_world(recorded=((48, 36),), resize="letterbox")).metadata
    assert (boxed["views"], boxed["recorded"]) == ({"top": (0, 6, 16, 12)}, {"top": (48, 36)})


def test_without_recorded_reward_and_success(build_world, actions):
    env = make(build_world(reward=False, success=False))
    assert (env.metadata["predicts_reward"], env.metadata["predicts_success"]) == (False, False)
    env.reset(seed=0)
    for _, reward, terminated, _, info in play(env, actions[:5, 0]):
        assert (reward, terminated, info["is_success"], info["success_probability"]) == (
            0.0,
            False,
            False,
            0.0,
        )


def test_reset_to_a_start_shows_what_was_recorded(world):
    env = make(world)
    obs, info = env.reset(seed=0, options={"episode": 3, "frame": 10})
    start = world.starts.get(3, 10)
    np.testing.assert_array_equal(obs["pixels"], start.pixels[-1, 0])
    np.testing.assert_array_equal(obs["agent_pos"], start.state[-1, :2])
    np.testing.assert_array_equal(obs["environment_state"], start.state[-1, 2:])
    where = {"start_episode": 3, "start_frame": 10}
    assert info == {"is_success": False, "success_probability": 0.0, "uncertainty": 0.0} | where
    np.testing.assert_array_equal(env.render(), obs["pixels"])


def test_the_frames_before_a_start_are_context_up_to_the_window(world, actions):
    """An episode that starts in the middle must know how things were moving: window = 4 frames, and the state
    before them."""

    def step_with_only(first: int):
        kept = (world.starts.addresses[:, 0] == 3) & (world.starts.addresses[:, 1] >= first)
        arrays = {name: value[kept] for name, value in world.starts.arrays().items()}
        env = make(replace(world, starts=StartStates(**arrays)))
        env.reset(seed=0, options={"episode": 3, "frame": 6})
        return env.step(actions[0, 0])[0]

    assert same(step_with_only(0), step_with_only(2))
    assert not same(step_with_only(2), step_with_only(3))


def test_draws_are_seeded_and_prefer_first_frames(world):
    env = make(world)
    starts = []
    for seed in range(20):
        _, info = env.reset(seed=seed)
        starts.append((info["start_episode"], info["start_frame"]))
    assert {frame for _, frame in starts} == {0}
    assert {episode for episode, _ in starts} == {3, 5, 8}
    assert env.reset(seed=4)[1]["start_episode"] == starts[4][0]


def test_starts_narrow_the_draw(world):
    env = make(world, starts=[(5, 2), (8, 1)])
    drawn = [env.reset(seed=seed)[1] for seed in range(10)]
    assert {(info["start_episode"], info["start_frame"]) for info in drawn} == {(5, 2), (8, 1)}


def test_equal_seeds_equal_bits_and_other_seeds_differ(world, actions):
    env = make(world, success_threshold=1.0)
    runs = []
    for seed in (1, 2, 1):
        runs.append((env.reset(seed=seed, options={"episode": 3}), play(env, actions[:10, 0])))
    assert same(runs[0], runs[2])
    assert not same(runs[0][1], runs[1][1])  # the same start and actions: it is the noise that differs


def test_giving_the_start_keeps_the_noise(world, actions):
    env = make(world, success_threshold=1.0)
    _, info = env.reset(seed=1)
    drawn = play(env, actions[:5, 0])
    env.reset(seed=1, options={"episode": info["start_episode"], "frame": info["start_frame"]})
    assert same(drawn, play(env, actions[:5, 0]))


def test_later_episodes_do_not_depend_on_how_long_the_first_was(world, actions):
    env = make(world, success_threshold=1.0)
    env.reset(seed=1)
    play(env, actions[:7, 0])
    longer = env.reset(), play(env, actions[:5, 0])
    env.reset(seed=1)
    play(env, actions[:2, 0])
    assert same(longer, (env.reset(), play(env, actions[:5, 0])))


def test_truncates_at_the_horizon_and_then_wants_a_reset(world, actions):
    env = make(world, success_threshold=1.0, horizon=4)
    env.reset(seed=0)
    assert [step[3] for step in play(env, actions[:4, 0])] == [False, False, False, True]
    with pytest.raises(ResetNeeded, match="is over"):
        env.step(actions[4, 0])
    assert make(world).get_wrapper_attr("_max_episode_steps") == world.schema.horizon


@pytest.mark.parametrize("wrong", [["1", "2"], [True, False], [1j, 0]])
def test_what_is_no_number_is_no_action(world, wrong):
    env = make(world)
    env.reset(seed=0)
    with pytest.raises(TypeError, match=r"is an array of numbers of shape .* its values are of type"):
        env.step(np.array(wrong))


def test_actions_may_be_tensors_of_any_type(world, actions):
    env = make(world)
    steps = []
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        env.reset(seed=0)
        steps.append(env.step(torch.from_numpy(actions[0, 0]).bfloat16().to(dtype)))
    assert same(steps[0], steps[1])
    assert same(steps[0], steps[2])


@pytest.mark.parametrize("shipped", ["PushT-v0", "G1-v0"])
def test_a_shipped_world_is_the_same_each_time_it_is_loaded(shipped):
    """Weights that an older file lacks came at random: saved states were of another world, compiled steps
    were never found again."""
    torch.manual_seed(1)
    first = World.load(scd_envs.SHIPPED[shipped]["world"])
    torch.manual_seed(2)
    assert World.load(scd_envs.SHIPPED[shipped]["world"]).fingerprint == first.fingerprint


def test_terminates_on_success(world, actions):
    env = make(world, success_threshold=0.9)
    env.reset(seed=0)
    for action in actions[:20, 0]:
        *_, terminated, _, info = env.step(action)
        assert terminated == info["is_success"] == (info["success_probability"] > 0.9)
        if terminated:
            return
    raise AssertionError("no success in 20 steps: the test needs other weights")


def test_branches_go_on_to_the_bit(world, actions):
    """A branch that shared the cache or the generator was silently wrong by 1e-2."""
    env = make(world, success_threshold=1.0, horizon=12)
    env.reset(seed=0)
    play(env, actions[:5, 0])
    saved = env.unwrapped.get_state()
    first = play(env, actions[5:12, 0]), env.reset(), play(env, actions[:3, 0])
    for _ in range(2):  # a state may be used more than once
        env.unwrapped.set_state(saved)
        assert same(first, (play(env, actions[5:12, 0]), env.reset(), play(env, actions[:3, 0])))
    env.unwrapped.set_state(saved)
    assert not same(first[0], play(env, actions[6:13, 0]))


def test_a_state_moves_to_another_environment(world, actions):
    one, other = make(world, success_threshold=1.0), make(world, success_threshold=1.0)
    one.reset(seed=0)
    other.reset(seed=99)
    play(one, actions[:3, 0])
    other.unwrapped.set_state(one.unwrapped.get_state())
    np.testing.assert_array_equal(one.render(), other.render())
    assert same(play(one, actions[3:8, 0]), play(other, actions[3:8, 0]))
    with pytest.raises(TypeError, match="get_state"):
        one.unwrapped.set_state({"steps": 3})


def test_a_state_of_another_training_is_refused(world, build_world):
    one = make(world)
    one.reset(seed=0)
    retrained = build_world()
    assert retrained.fingerprint == world.fingerprint
    weights = retrained.model.state_dict()
    name = next(iter(weights))
    retrained.model.load_state_dict(weights | {name: weights[name] + 1e-3})
    del retrained.fingerprint
    with pytest.raises(ValueError, match="another world"):
        make(retrained).unwrapped.set_state(one.unwrapped.get_state())


def test_a_caller_may_overwrite_what_it_was_given(world, actions):
    """Returned arrays that alias the environment's own would change render(), or the next frame."""
    env = make(world, success_threshold=1.0)
    env.reset(seed=0)
    clean = play(env, actions[:4, 0])
    env.reset(seed=0)
    for action, expected in zip(actions[:4, 0], clean, strict=True):
        step = env.step(action)
        assert same(step, expected)
        frame = env.render()
        for array in (*step[0].values(), frame):
            array[:] = 0
        np.testing.assert_array_equal(env.render(), expected[0]["pixels"])


def test_num_steps_changes_the_image(world, actions):
    frames = []
    for num_steps in (1, 4):
        env = make(world, num_steps=num_steps)
        env.reset(seed=0)
        frames.append(env.step(actions[0, 0])[0]["pixels"])
    assert (frames[0] != frames[1]).any()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_horizon(world, actions):
    env = make(world, success_threshold=1.0, horizon=1000)
    env.reset(seed=0)
    cache = lambda: env.unwrapped.episodes.state.rollout.cache  # noqa: E731
    play(env, actions[:10, 0])
    gc.collect()
    size, resident = cache().nbytes, psutil.Process().memory_info().rss
    for step in range(300):
        env.step(actions[step % 30, 0])
    gc.collect()
    assert cache().nbytes == size
    assert psutil.Process().memory_info().rss - resident < 8e6


def test_a_world_on_disk_is_the_same_environment(world, folder, actions):
    steps = []
    for source in (world, folder, str(folder)):
        env = make(source)
        steps.append((env.reset(seed=0), env.step(actions[0, 0])))
        env.close()
        env.close()
    assert same(steps[0], steps[1])
    assert same(steps[0], steps[2])


def test_works_under_gymnasiums_wrappers(world, actions):
    """RecordEpisodeStatistics refuses an info that has a key `episode`."""
    env = gymnasium.wrappers.RecordEpisodeStatistics(make(world, success_threshold=1.0, horizon=3))
    env.reset(seed=0)
    *_, info = play(env, actions[:3, 0])[-1]
    assert info["episode"]["l"] == 3


BAD_ACTIONS = {
    "too long": ([0, 0, 0], ValueError, r"shape \(2,\).*\['dx', 'dy'\].*\(3,\)"),
    "a batch": ([[0, 0]], ValueError, r"shape \(2,\).*\(1, 2\)"),
    "NaN": ([0, float("nan")], ValueError, r"dimension 1 \('dy'\).*nan is not finite"),
    "infinite": ([float("inf"), 0], ValueError, "inf is not finite"),
    "absurd": ([1e300, 0], ValueError, "far outside"),
    "pixels for metres": ([300, 0], ValueError, r"dimension 0 \('dx'\).*\[-1, 1\].*300.*clip_actions=True"),
    "text": (["left", "right"], TypeError, "array of numbers"),
    "ragged": ([[0], [0, 1]], TypeError, "array of numbers"),
}


@pytest.mark.parametrize(("action", "error", "message"), BAD_ACTIONS.values(), ids=BAD_ACTIONS)
def test_bad_actions_say_what_is_wrong(world, action, error, message):
    env = make(world)
    env.reset(seed=0)
    with pytest.raises(error, match=message):
        env.unwrapped.step(action)
    env.step(np.zeros(2, np.float32))  # and nothing was lost


def test_clipping_is_an_option_and_a_little_outside_is_not_a_mistake(world):
    results = {}
    for name, clip, action in (
        ("far", True, [300, 0]),
        ("border", False, [1, 0]),
        ("near", False, [1.05, 0]),
    ):
        env = make(world, clip_actions=clip)
        env.reset(seed=0)
        with pytest.warns(UserWarning, match="raw units") if clip else nullcontext():  # another unit, perhaps
            results[name] = env.step(np.array(action))
    assert same(results["far"], results["border"])
    assert not same(results["near"], results["border"])
    env = make(world, clip_actions=True)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="not finite"):
        env.step(np.array([np.nan, 0]))


def test_clipping_is_warned_of_once_with_all_dimensions(world):
    """A robot of 26 joints gave 26 warnings."""
    env = make(world, clip_actions=True, horizon=9, success_threshold=1.0)
    env.reset(seed=0)
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        for action in ([0, 0], [300, -300], [300, 0], [0, 300]):
            env.step(np.array(action))
    (only,) = given
    assert "dimension 0 ('dx') [-1, 1], dimension 1 ('dy') [-1, 1]" in str(only.message)


BAD_ARGUMENTS = {
    "a typo": ({"nmu_steps": 4}, TypeError, "'nmu_steps'.*Did you mean 'num_steps'"),
    "no steps": ({"num_steps": 0}, ValueError, "num_steps.*≥ 1.*0"),
    "half a horizon": ({"horizon": 2.5}, ValueError, "horizon.*2.5"),
    "a bool of steps": ({"num_steps": True}, ValueError, "num_steps.*True"),
    "a horizon of text": ({"horizon": "20"}, ValueError, "horizon.*'20'"),
    "an uncertainty of text": ({"max_uncertainty": "a"}, ValueError, "max_uncertainty is a share.*'a'"),
    "a threshold of text": (
        {"success_threshold": "high"},
        ValueError,
        r"success_threshold.*\[0, 1\].*'high'",
    ),
    "a task's number": ({"task": 5}, ValueError, "task is a text.*got 5"),
    "no as text": ({"clip_actions": "no"}, ValueError, "clip_actions is True or False; got 'no'"),
    "one for yes": ({"compile": 1}, ValueError, "compile is True or False; got 1"),
    "starts of text": ({"starts": "all"}, ValueError, "pairs; got 'all'"),
    "ragged starts": ({"starts": [(3, 0), (5,)]}, ValueError, "pairs"),
    "half a start": ({"starts": [(3.5, 0)]}, ValueError, "pairs"),
    "a percentage": ({"success_threshold": 50}, ValueError, r"\[0, 1\].*50"),
    "a word for a switch": ({"clip_actions": "no"}, ValueError, "clip_actions is True or False; got 'no'"),
    "another": ({"compile": "false"}, ValueError, "compile is True or False; got 'false'"),
    "an unknown start": ({"starts": [(4, 0)]}, ValueError, "episode 4.*3, 5, 8"),
    "no start": ({"starts": []}, ValueError, "pairs"),
    "a device for a World": ({"device": "cpu"}, ValueError, "device='cpu'.*leave device out"),
}


@pytest.mark.parametrize(("kwargs", "error", "message"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_bad_arguments_say_what_is_wrong(world, kwargs, error, message):
    with pytest.raises(error, match=message):
        WorldEnv(world, **kwargs)


BAD_OPTIONS = {
    "unknown frame": ({"episode": 3, "frame": 12}, "frame 12.*0 to 11"),
    "unknown episode": ({"episode": 4, "frame": 0}, "3, 5, 8"),
    "a typo": ({"epsiode": 3}, "'episode'.*'epsiode'"),
    "a frame of nothing": ({"frame": 3}, "'episode'"),
    "a text": ({"episode": "three"}, "whole numbers.*'three'"),
    "ragged": ({"episode": [[1], [2, 3]]}, "whole numbers"),
    "a task's number": ({"task": 5}, "'task' is one task.*got 5"),
    "keys of many kinds": ({3: 1, "x": 2}, r"got \[3, 'x'\]"),
    "half a frame": ({"episode": 3, "frame": 0.5}, "whole numbers.*0.5"),
}


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_bad_reset_options_say_what_is_wrong(world, options, message):
    with pytest.raises(ValueError, match=message):
        make(world).reset(seed=0, options=options)


@pytest.mark.parametrize("options", ["episode", [("episode", 3)], 3])
def test_options_that_are_no_dict_are_refused(world, options):
    for env in (WorldEnv(world), WorldVectorEnv(world, 2)):
        with pytest.raises(TypeError, match=r"reset\(options=...\) takes a dict or None; got "):
            env.reset(options=options)


@pytest.mark.parametrize("seed", [np.int64(3), np.int32(3), np.uint8(3)])
def test_numpys_whole_numbers_are_seeds(world, seed):
    env = WorldEnv(world)
    assert same(env.reset(seed=seed), env.reset(seed=3))
    envs = WorldVectorEnv(world, 2)
    for seeds in (seed, [seed, seed + 1], [seed, 4], np.array([3, 4]), (3, np.int16(4))):
        assert same(envs.reset(seed=seeds), envs.reset(seed=3))
        assert envs.np_random_seed == (3, 4)


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (-1, ValueError, "a seed is 0 or more; got -1"),
        (1.5, TypeError, "a seed is a whole number.* got 1.5"),
        ("3", TypeError, "a seed is a whole number.* got '3'"),
        (True, TypeError, "a seed is a whole number.* got True"),
    ],
)
def test_what_is_no_seed_is_refused(world, seed, error, message):
    envs = WorldVectorEnv(world, 2)
    for reset in (WorldEnv(world).reset, envs.reset, lambda seed: envs.reset(seed=[3, seed])):
        with pytest.raises(error, match=message):
            reset(seed=seed)


@pytest.mark.parametrize(
    ("world", "device", "error", "message"),
    [
        (3, None, TypeError, r"world is a folder, a Hub id or a World; got 3 \(int\)"),
        ("nowhere", "gpu", ValueError, "device is 'cpu', 'cuda'.*got 'gpu'"),
        ("nowhere", 0.5, ValueError, "device is 'cpu', 'cuda'.*got 0.5"),
    ],
)
def test_what_is_no_world_or_device_is_refused(world, device, error, message):
    with pytest.raises(error, match=message):
        WorldEnv(world, device=device)


def test_lerobots_own_reset_option_is_let_through(world):
    make(world).reset(seed=0, options={"lerobot_new_rollout": True})


def test_a_missing_world_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no world at .*nowhere"):
        make(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"which world.*world=<its folder>"):
        gymnasium.make(SINGLE)


@pytest.mark.parametrize(("name", "folder"), [("PushT-v0", "pusht"), ("G1-v0", "g1")])
def test_the_shipped_worlds_step_from_inside_the_package(name, folder):
    shipped = Path(gymnasium.spec(f"scd_world/{name}").kwargs["world"])
    assert shipped == Path(scd_envs.__file__).parent / "worlds" / folder
    assert sum(file.stat().st_size for file in shipped.rglob("*")) < 17e6
    env = gymnasium.make(f"scd_world/{name}")
    obs, _ = env.reset(seed=0)
    assert obs in env.observation_space
    assert (env.step(env.unwrapped.action_space.sample())[0]["pixels"] != obs["pixels"]).any()
    envs = gymnasium.make_vec(f"scd_world/{name}", num_envs=2)
    assert envs.reset(seed=0)[0] in envs.observation_space


def test_stepping_before_reset_says_so(world):
    env = make(world).unwrapped
    for call in (lambda: env.step(np.zeros(2)), env.render, env.get_state):
        with pytest.raises(ResetNeeded, match=r"reset\(\)"):
            call()


def test_uncertainty_grows_and_can_end_an_episode(world):
    env = gymnasium.make("scd_world/World-v0", world=world, success_threshold=1.0, horizon=20)
    _, info = env.reset(seed=0)
    assert info["uncertainty"] == 0
    predicted = [env.step(env.action_space.sample())[4]["uncertainty"] for _ in range(6)]
    assert 0 < predicted[0] < max(predicted)
    bound = float(np.sort(predicted)[-2])
    strict = gymnasium.make(
        "scd_world/World-v0", world=world, success_threshold=1.0, horizon=20, max_uncertainty=bound
    )
    env.action_space.seed(0), env.reset(seed=0), strict.reset(seed=0)
    for _ in range(20):
        action = env.action_space.sample()
        *_, truncated, info = strict.step(action)
        assert truncated == (info["uncertainty"] > bound)
        if truncated:
            break
    assert truncated


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan")])
def test_an_uncertainty_that_cannot_be_is_refused(world, wrong):
    with pytest.raises(ValueError, match="max_uncertainty is a share"):
        gymnasium.make("scd_world/World-v0", world=world, max_uncertainty=wrong)


def test_a_world_without_a_state_has_no_uncertainty_to_end_on(build_world):
    with pytest.raises(ValueError, match="max_uncertainty: this world has no state, so it predicts"):
        make(build_world(**SCHEMAS["pixels alone"]), max_uncertainty=0.1)


def test_a_world_without_a_prior_says_nothing_of_uncertainty(build_world, actions):
    """Its model gives NaN, which no episode would ever end on, and which would look like a measurement."""
    world = build_world(prior=PriorConfig(kind="none"))
    env = make(world, success_threshold=1.0, horizon=3)
    infos = [env.reset(seed=0)[1], *(step[4] for step in play(env, actions[:3, 0]))]
    assert all("uncertainty" not in info for info in infos)
    envs = WorldVectorEnv(world, 2, success_threshold=1.0)
    envs.reset(seed=0)
    *_, infos = envs.step(actions[0, :2])
    assert not {"uncertainty", "_uncertainty"} & set(infos)
    for refused in (make, lambda world, **kwargs: WorldVectorEnv(world, 2, **kwargs)):
        with pytest.raises(ValueError, match=r"no state prior.*prior=none.*predicts no uncertainty"):
            refused(world, max_uncertainty=0.1)


def test_image_uncertainty_is_told_where_a_filter_was_measured_and_can_end_an_episode(build_world, actions):
    world = build_world(config=replace(TINY, state_filter=True, anchor_frame=True))
    quiet = {"success_threshold": 1.0, "horizon": 20}
    assert "image_uncertainty" not in make(world, **quiet).reset(seed=0)[1]
    refusal = r"max_image_uncertainty: this world has no filter that was measured"
    with pytest.raises(ValueError, match=refusal):
        make(world, max_image_uncertainty=0.1)
    world.model.filter.error_weights.copy_(torch.tensor([-3.0, 0.4, 0.1, 0.1, 0.1, 0.0]))
    env = make(world, **quiet)
    assert env.reset(seed=0)[1]["image_uncertainty"] == 0  # it was recorded
    told = [step[4]["image_uncertainty"] for step in play(env, actions[:6, 0])]
    assert 0 < told[0] < told[-1] < 1
    bound = (max(told[:3]) + max(told)) / 2
    strict = make(world, **quiet, max_image_uncertainty=bound)
    strict.reset(seed=0)
    ends = [step[3] for step in play(strict, actions[: int(np.argmax(np.array(told) > bound)) + 1, 0])]
    assert ends == [False] * (len(ends) - 1) + [True]
    envs = WorldVectorEnv(world, 2, **quiet)
    envs.reset(seed=[0, 1])
    *_, infos = envs.step(actions[0, :2])
    assert infos["image_uncertainty"][0] == pytest.approx(told[0], rel=1e-4)
    envs.set_attr("max_image_uncertainty", 1e-6)
    assert envs.step(actions[1, :2])[3].all()
    with pytest.raises(
        ValueError, match=r"max_image_uncertainty=0\.1 is of the images that render_images=False"
    ):
        make(world, render_images=False, max_image_uncertainty=0.1)
    with pytest.raises(ValueError, match="max_image_uncertainty is a share of the range from black to white"):
        make(world, max_image_uncertainty=0.0)


def test_a_closed_environment_is_closed(world):
    """It stepped on, as if nothing had been; the vector environment never did."""
    env = gymnasium.make("scd_world/World-v0", world=world)
    env.reset(seed=0)
    state = env.unwrapped.get_state()
    env.close()
    for use in (lambda e: e.step(e.action_space.sample()), lambda e: e.reset(), lambda e: e.set_state(state)):
        with pytest.raises(ClosedEnvironmentError, match="was closed: make a new one"):
            use(env.unwrapped)
