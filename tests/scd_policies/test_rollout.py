"""Rollouts: what is recorded is what happened, in single and vector environments and every autoreset."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from scd_envs import simulators
from scd_policies import make
from scd_policies.rollout import episodes, rollout


class Countdown(gymnasium.Env):
    """Counts from its seed (or from options["start"]) down to 0, where it succeeds."""

    observation_space = gymnasium.spaces.Dict(
        pixels=gymnasium.spaces.Box(0, 255, (2, 2, 3), np.uint8),
        agent_pos=gymnasium.spaces.Box(0, 100, (1,), np.float32),
    )
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = (options or {}).get("start", seed if seed is not None else 50)
        return self.observe(), {"is_success": False}

    def step(self, action):
        self.left -= 1
        info = {"is_success": self.left == 0, "left": self.left, "word": "not a scalar"}
        return self.observe(), float(self.left), self.left == 0, False, info

    def observe(self):
        return {
            "pixels": np.full((2, 2, 3), self.left, np.uint8),
            "agent_pos": np.array([self.left], np.float32),
        }


def vector(num_envs, mode):
    return SyncVectorEnv([Countdown] * num_envs, autoreset_mode=mode)


@pytest.fixture(params=["single", AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP], ids=str)
def env(request):
    return Countdown() if request.param == "single" else vector(3, request.param)


@pytest.fixture
def policy():
    return make("random_walk", Countdown.action_space)


def test_every_episode_is_its_own(env, policy):
    done = rollout(env, policy, seeds=[2, 5, 3, 4], frames=True)
    np.testing.assert_array_equal(done.length, [2, 5, 3, 4])
    np.testing.assert_array_equal(done.obs["agent_pos"][0, :, 0], [2, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(done.obs["pixels"][2, :, 0, 0, 0], [3, 2, 1, 0, 0, 0])
    np.testing.assert_array_equal(done.reward[3], [3, 2, 1, 0, 0])
    np.testing.assert_array_equal(done.valid.sum(1), done.length)
    assert done.success.all()
    assert done.terminated.all()
    assert not done.truncated.any()


def test_options_and_max_steps(env, policy):
    options = [{"start": 9}, {}, {"start": 2}]
    done = rollout(env, policy, seeds=[1, 3, 4], options=options, max_steps=3)
    np.testing.assert_array_equal(done.obs["agent_pos"][:, 0, 0], [9, 3, 2])
    np.testing.assert_array_equal(done.length, [3, 3, 2])
    np.testing.assert_array_equal(done.success, [False, True, True])
    np.testing.assert_array_equal(done.truncated, [True, False, False])
    assert "pixels" not in done.obs


def test_the_info_of_each_step_is_kept(env, policy):
    """With same-step autoreset the last step's is elsewhere; another episode's must not slip in."""
    two, five = episodes(env, policy, seeds=[2, 5], max_steps=[9, 4])
    np.testing.assert_array_equal(two.info["is_success"], [False, True])
    np.testing.assert_array_equal(five.info["is_success"], [False] * 4)
    assert (two.info["left"].tolist(), five.info["left"].tolist()) == ([1, 0], [4, 3, 2, 1])
    assert (two.success, five.success, five.truncated) == (True, False, True)


class Passing(Countdown):
    """Goes on below 0: success is behind it then."""

    def step(self, action):
        obs, reward, _, truncated, info = super().step(action)
        return obs, reward, False, truncated, info

    def observe(self):
        return {"agent_pos": np.array([max(self.left, 0)], np.float32)}


def test_an_episode_that_succeeded_once_has_succeeded(policy):
    """As LeRobot counts it, and as a world does, in which success ends it."""
    past, short = episodes(Passing(), policy, seeds=[2, 9], max_steps=5)
    assert (past.success, short.success) == (True, False)
    assert past.info["is_success"].tolist() == [False, True, False, False, False]


def test_actions_do_not_depend_on_the_batch(policy):
    alone = list(episodes(Countdown(), policy, seeds=[6, 4, 5]))
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        for one, other in zip(alone, episodes(vector(2, mode), policy, seeds=[6, 4, 5]), strict=True):
            np.testing.assert_array_equal(one.action, other.action)


def test_a_replay_repeats_an_episode():
    env = simulators.make("pendulum")
    first = next(episodes(env, make("random_walk", env.action_space), seeds=[7], max_steps=20))
    again = next(
        episodes(
            env,
            make("replay", env.action_space, actions=[first.action]),
            seeds=[7],
            policy_seeds=[0],
            max_steps=20,
        )
    )
    np.testing.assert_array_equal(first.obs["agent_pos"], again.obs["agent_pos"])


def test_unequal_lists_are_answered_in_words(policy):
    with pytest.raises(ValueError, match="as many seeds"):
        rollout(Countdown(), policy, seeds=[1, 2], options=[{}])


@pytest.mark.parametrize("steps", [0, -2, [3, 0]])
def test_an_episode_has_a_step(policy, steps):
    """It was played to its end, as if nothing had been said."""
    with pytest.raises(ValueError, match=r"max_steps=(0|-2): an episode has 1 step or more"):
        rollout(Countdown(), policy, seeds=[1, 2], max_steps=steps)


def test_a_policy_is_told_which_rows_are_over():
    """To one that plans, each decision is dear."""

    class Resting:
        def reset(self, seeds):
            self.rows, self.told = len(seeds), []

        def act(self, obs):
            return np.zeros((self.rows, 1), np.float32)

        def end_rows(self, over):
            self.told.append(over.tolist())

    policy = Resting()
    played = list(episodes(vector(2, AutoresetMode.SAME_STEP), policy, [3, 1]))
    assert [len(each.action) for each in played] == [3, 1]
    assert policy.told == [[False, False], [False, True], [False, True]]
