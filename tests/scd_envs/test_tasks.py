"""A world of several tasks: the task reaches the model, the starts and whoever asks for its name."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from scd_envs.vector_env import WorldVectorEnv
from scd_envs.world_env import WorldEnv
from scd_world.world.world import World

TASKS = ("lift the block", "push the block")
FOR_EVER = {"success_threshold": 1.0}


@pytest.fixture(scope="module")
def world(build_world):
    """Its episodes 3 and 5 lift, episode 8 pushes."""
    return build_world(tasks=TASKS)


def imagined(env: gymnasium.Env, actions, **options) -> list[np.ndarray]:
    env.reset(seed=1, options=options)
    return [env.step(action)[0]["pixels"] for action in actions[:3, 0]]


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_task_changes_what_is_imagined(world, actions):
    env, start = WorldEnv(world, **FOR_EVER), {"episode": 3, "frame": 4}
    lift, push = (imagined(env, actions, task=task, **start) for task in TASKS)
    assert not same(lift, push)
    assert same(lift, imagined(env, actions, **start))  # the recorded task
    assert same(push, imagined(WorldEnv(world, task=TASKS[1], **FOR_EVER), actions, **start))


def test_starts_are_drawn_from_those_that_show_the_task(world):
    env = WorldEnv(world)
    for task, episodes in zip(TASKS, ({3, 5}, {8}), strict=True):
        drawn = {env.reset(seed=i, options={"task": task})[1]["start_episode"] for i in range(12)}
        assert drawn == episodes
        assert (env.unwrapped.task, env.unwrapped.task_description) == (task, task)
    first = [env.reset(seed=i)[1]["start_episode"] for i in range(12)]
    assert set(first) == {3, 5, 8}


def test_rows_have_their_own_tasks(world, actions):
    """Row i of the batch must be conditioned as a single environment is, also after a restart of its own."""
    wanted = [TASKS[1], TASKS[0], TASKS[1]]
    envs = WorldVectorEnv(world, 3, autoreset_mode=AutoresetMode.DISABLED, **FOR_EVER)
    envs.reset(seed=5, options={"task": TASKS[0], "episode": 5})
    envs.step(actions[0, :3])
    envs.reset(
        seed=[6, 6, 6], options={"task": wanted, "episode": 3, "reset_mask": np.array([True, False, True])}
    )
    assert envs.call("task_description") == tuple(wanted)
    obs = envs.step(actions[1, :3])[0]
    for row in (0, 2):
        alone = WorldEnv(world, **FOR_EVER)
        alone.reset(seed=6, options={"task": TASKS[1], "episode": 3})
        own = alone.step(actions[1, row])[0]
        assert np.abs(own["pixels"].astype(int) - obs["pixels"][row]).max() <= 1
        np.testing.assert_allclose(own["agent_pos"], obs["agent_pos"][row], atol=1e-4)


def test_a_branch_keeps_its_task(world, actions):
    env = WorldEnv(world, **FOR_EVER)
    env.reset(seed=0, options={"task": TASKS[1], "episode": 3})
    saved = env.get_state()
    then = env.step(actions[0, 0])[0]["pixels"]
    env.reset(seed=0, options={"task": TASKS[0]})
    env.set_state(saved)
    assert env.task == TASKS[1]
    assert np.array_equal(env.step(actions[0, 0])[0]["pixels"], then)


def test_tasks_survive_the_disk(world, actions, tmp_path):
    loaded = World.load(world.save(tmp_path / "world"))
    assert loaded.starts.task.tolist() == world.starts.task.tolist()
    a, b = (imagined(WorldEnv(w, **FOR_EVER), actions, task=TASKS[1], episode=3) for w in (world, loaded))
    assert same(a, b)


def test_zeros_survive_the_disk(build_world, tmp_path):
    """Starts that all show the first task, at rest, are whole arrays of zeros: zarr leaves those out."""
    world = build_world(tasks=TASKS)
    first = replace(world.starts, task=np.zeros_like(world.starts.task), action=0 * world.starts.action)
    loaded = World.load(replace(world, starts=first).save(tmp_path / "world"))
    assert not loaded.starts.task.any()
    assert len(loaded.starts.task) == len(first.task)


def test_an_unknown_task_is_refused_with_those_there_are(world):
    known = r"it knows \['lift the block', 'push the block'\]"
    what = rf"not trained on the task 'push the blok'; {known}. Did you mean"
    with pytest.raises(ValueError, match=what):
        WorldEnv(world).reset(options={"task": "push the blok"})
    with pytest.raises(ValueError, match="not trained on the task"):
        WorldEnv(world, task="fly")
    with pytest.raises(ValueError, match="one for each of 2 rows"):
        WorldVectorEnv(world, 2).reset(options={"task": [TASKS[0]]})


def test_lerobot_reads_each_rows_task(world, tmp_path):
    from lerobot_env_scd_world import WorldEnvConfig

    folder = str(world.save(tmp_path / "world"))
    env = WorldEnvConfig(world=folder, device="cpu").create_envs(n_envs=8)["scd_world"][0]
    _, infos = env.reset(seed=0)
    shown = [TASKS[int(episode == 8)] for episode in infos["start_episode"]]
    assert set(shown) == set(TASKS)
    assert env.call("task_description") == tuple(shown)
    fixed = WorldEnvConfig(world=folder, device="cpu", task=TASKS[0]).create_envs(n_envs=2)["scd_world"][0]
    fixed.reset(seed=0)
    assert fixed.call("task_description") == (TASKS[0],) * 2
    with pytest.raises(ValueError, match="it knows"):
        WorldEnvConfig(world=folder, task="fly")
