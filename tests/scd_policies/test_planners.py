"""Planners choose what their model says is better, each row on its own; wrong use is answered in words."""

import warnings
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from scd_policies import NAMES, PLANNERS, is_checkpoint, make
from scd_policies.planners.config import PlannerConfig
from scd_policies.planners.history import pixels_of
from scd_policies.planners.imagination import Imagination, Outcome
from scd_policies.planners.noise import colored_noise
from scd_policies.planners.scoring import plan_value
from scd_policies.rollout import episodes
from scd_world.robot_data.schema import DataSchema

BOX = gymnasium.spaces.Box(-np.ones(2, np.float32), np.ones(2, np.float32))
POINT = DataSchema(
    cameras=("top",),
    height=8,
    width=8,
    agent_pos=("x", "y"),
    environment_state=(),
    action=("x", "y"),
    action_low=(-1.0, -1.0),
    action_high=(1.0, 1.0),
    fps=10,
    tasks=("reach",),
    reward=True,
    success=True,
    horizon=30,
)
GOAL = torch.tensor([0.6, -0.4])


def moved(x, action):
    """A point goes a third of the way to where it is sent."""
    return x + (action - x) / 3


class PointModel(Imagination):
    """A world that is known: reward −distance to GOAL; unsure of all that lies right of `unsure_beyond`."""

    frames, needs_images, has_uncertainty, differentiable = 1, False, True, True
    device = torch.device("cpu")

    def __init__(self, schema: DataSchema = POINT, unsure_beyond: float = 9.0) -> None:
        self.schema, self.unsure_beyond, self.steps = schema, unsure_beyond, 0

    def begin(self, start, copies, seed):
        return torch.from_numpy(start.state[-1]).expand(copies, -1)

    def step(self, s, action):
        self.steps += len(action)
        s = moved(s, action)
        reward = -(s - GOAL).square().sum(-1)
        return s, Outcome(reward, torch.zeros_like(reward), (s[:, 0] > self.unsure_beyond).float())

    def observation(self, s):
        return {"agent_pos": s.detach().numpy()}

    def rest_action(self, start):
        return torch.from_numpy(start.state[-1])


class PointEnv(gymnasium.Env):
    """The same in truth."""

    observation_space = gymnasium.spaces.Dict(agent_pos=BOX)
    action_space = BOX

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 0, 2).astype(np.float32)
        return {"agent_pos": self.x}, {}

    def step(self, action):
        self.x = moved(self.x, action).astype(np.float32)
        distance = float(np.linalg.norm(self.x - GOAL.numpy()))
        return {"agent_pos": self.x}, -(distance**2), False, False, {"is_success": distance < 0.05}


class Sleeper:
    """A policy that stays where it is; shared, it would also show whether planners copy it."""

    def __init__(self, action_space: gymnasium.Space) -> None:
        self.rows = 0

    def reset(self, seeds):
        self.rows = len(seeds)

    def act(self, obs: dict[str, Any]) -> np.ndarray:
        assert len(obs["agent_pos"]) == self.rows
        return np.array(obs["agent_pos"])


SMALL: dict[str, dict[str, Any]] = {
    "best_of_n": {"base": "random_walk", "n": 30},
    "icem": {"samples": 30, "iterations": 3},
    "mppi": {"samples": 30, "iterations": 3},
    "gradient": {"samples": 4, "iterations": 30, "lr": 0.1},
}


def planner(name, model=None, space=BOX, **settings):
    settings = {"horizon": 6, "execute": 2} | SMALL[name] | settings
    return make(name, space, world=model or PointModel(), **settings)


def obs_of(*points):
    return {"agent_pos": np.array(points, np.float32)}


@pytest.mark.parametrize("name", PLANNERS)
def test_planners_do_better_than_rest_and_chance(name):
    assert name in NAMES
    assert not is_checkpoint(name)
    played = list(episodes(PointEnv(), planner(name), range(3), max_steps=16))
    walked = list(episodes(PointEnv(), make("random_walk", BOX), range(3), max_steps=16))
    for mine, chance in zip(played, walked, strict=True):
        assert mine.reward[-1] > -0.1 > chance.reward.min()
        assert mine.reward.sum() > max(chance.reward.sum(), 16 * mine.reward[0])


@pytest.mark.parametrize("name", PLANNERS)
def test_rows_depend_on_their_own_seed_and_observations_alone(name):
    points = [(0.1, 0.2), (-0.5, 0.3), (-0.9, -0.9)]

    def actions(rows):
        policy = planner(name)
        policy.reset([5 + row for row in rows])
        return np.stack([policy.act(obs_of(*(points[row] for row in rows))) for _ in range(3)])

    together = actions([0, 1, 2])
    assert together.dtype == BOX.dtype
    np.testing.assert_array_equal(together[:, 1:2], actions([1]))
    np.testing.assert_array_equal(together, actions([0, 1, 2]))
    assert BOX.contains(together[0, 0])


@pytest.mark.parametrize("width", [0.0, 100.0])
@pytest.mark.parametrize("name", PLANNERS)
def test_what_never_moved_is_sent_as_it_was_recorded(name, width):
    """The world says the same of all values: noise of a search once went to the robot, or 0 / 0 did."""
    schema = replace(POINT, action_low=(-1.0, 0.25), action_high=(1.0, 0.25))
    space = gymnasium.spaces.Box(
        np.array([-1, 0.25 - width], np.float32), np.array([1, 0.25 + width], np.float32)
    )
    policy = planner(name, PointModel(schema), space)
    policy.reset([0])
    taken = np.concatenate([policy.act(obs_of((0, 0))) for _ in range(4)])
    assert (taken[:, 1] == 0.25).all()
    assert np.isfinite(taken).all()
    assert np.ptp(taken[:, 0]) > 0


def test_pictures_that_are_no_bytes_are_refused():
    """Of 0 to 1 a planner once saw black, without a word."""
    shown = np.full((8, 8, 3), 0.5, np.float32)
    with pytest.raises(ValueError, match="as uint8, 0 to 255; this environment gives float32"):
        pixels_of({"pixels": shown}, POINT)
    assert pixels_of({"pixels": (255 * shown).astype(np.uint8)}, POINT).mean() == 127


def test_a_plan_is_followed_for_as_long_as_asked_and_then_made_anew():
    model = PointModel()
    policy = planner("best_of_n", model, n=10, horizon=6, execute=3)
    policy.reset([0])
    counts, values = [], []
    for _ in range(7):
        policy.act(obs_of((0, 0)))
        counts.append(model.steps)
        values.append(policy.decision_info["plan_value"][0])
    assert counts == [60, 60, 60, 120, 120, 120, 180]
    assert values[0] == values[2] != values[3]
    assert policy.decision_info["plan_seconds"][0] > 0
    policy.act(obs_of((0, 0)))
    assert policy.decision_info["plan_seconds"][0] == 0


def test_a_rollout_keeps_what_was_promised_and_how_long_it_took():
    (mine,) = episodes(PointEnv(), planner("icem"), [0], max_steps=5)
    assert mine.decisions.keys() == {"plan_value", "plan_seconds"}
    assert mine.decisions["plan_seconds"] > 0
    assert -3 < mine.decisions["plan_value"] < 0
    assert np.isfinite(mine.info["plan_value"]).all()
    (chance,) = episodes(PointEnv(), make("random_walk", BOX), [0], max_steps=5)
    assert chance.decisions == {}


def test_the_best_of_n_is_the_best_and_more_are_better():
    values = {}
    for n in (1, 5, 50):
        policy = planner("best_of_n", n=n)
        policy.reset(range(20))
        policy.act(obs_of(*[(-0.5, 0.5)] * 20))
        values[n] = policy.decision_info["plan_value"].mean()
    assert values[1] < values[5] < values[50]


@pytest.mark.parametrize("name", ["icem", "mppi", "gradient"])
def test_searches_never_fall_behind_the_base_policys_proposal(name):
    """The warm start is kept: what a policy proposes is at least reached."""
    alone = planner("best_of_n", n=8, base_kwargs={"speed": 0.3})
    around = {"base": "random_walk", "base_kwargs": {"speed": 0.3}, "std": 1e-6, "iterations": 1}
    with_base = planner(name, proposals=8, **around)
    for policy in (alone, with_base):
        policy.reset(range(10))
        policy.act(obs_of(*[(-0.5, 0.5)] * 10))
    promised = with_base.decision_info["plan_value"]
    rest = -(GOAL - torch.tensor([-0.5, 0.5])).square().sum().item()
    assert (promised >= rest - 1e-6).all()
    assert promised.mean() > rest + 0.05


def test_gradients_find_the_optimum_of_a_smooth_world():
    policy = planner("gradient", horizon=3, iterations=200, lr=0.05, discount=1.0)
    policy.reset([0])
    policy.act(obs_of((0.3, -0.1)))
    assert policy.decision_info["plan_value"][0] > -1e-4  # GOAL is reached in three steps


@pytest.mark.parametrize("name", PLANNERS)
def test_uncertainty_is_avoided_where_it_costs(name):
    """GOAL lies at x = .6, where the model does not know what happens beyond .2."""
    sides = {}
    for penalty in (0.0, 10.0):
        policy = planner(name, PointModel(unsure_beyond=0.2), uncertainty_penalty=penalty, horizon=5)
        ends = [e.obs["agent_pos"][:, 0].max() for e in episodes(PointEnv(), policy, range(2), max_steps=12)]
        sides[penalty] = max(ends)
    assert sides[0.0] > 0.35
    if name != "gradient":  # a step has no slope
        assert sides[10.0] < 0.25


def test_a_plans_value_is_what_its_equation_says():
    outcomes = [
        Outcome(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.5]), torch.tensor([0.0, 0.1])),
        Outcome(torch.tensor([3.0, 2.0]), torch.tensor([0.0, 0.2]), torch.tensor([0.0, 0.0])),
    ]
    config = PlannerConfig(discount=0.5, success_value=4.0, uncertainty_penalty=10.0)
    # weights .5, .25 + .25; second plan: .5 · 4 − 1, then still half succeeded: .5 · 2 + .5 · 4
    value = plan_value(outcomes, config, POINT)
    torch.testing.assert_close(value, torch.tensor([0.5 * 1 + 0.5 * 3, 0.5 * 1 + 0.5 * 3]))
    unrewarded = plan_value(outcomes, config, replace(POINT, reward=False))
    torch.testing.assert_close(unrewarded, torch.tensor([0.0, 0.5 * 1 + 0.5 * 2]))
    last = plan_value(outcomes, replace(config, discount=1.0), replace(POINT, success=False))
    torch.testing.assert_close(last, torch.tensor([3.0, 2.0]))


@pytest.mark.parametrize("steps", [1, 2, 7, 20])
def test_noise_has_variance_1_at_any_length(steps):
    noise = colored_noise(np.random.default_rng(0), 4000, steps, 3, exponent=2.0)
    assert noise.shape == (4000, steps, 3)
    assert abs(noise.var() - 1) < 0.05


def test_noise_is_smoother_with_a_larger_exponent():
    jumps = [
        np.diff(colored_noise(np.random.default_rng(0), 500, 20, 1, exponent), axis=1).std()
        for exponent in (0.0, 1.0, 2.0, 4.0)
    ]
    assert jumps == sorted(jumps, reverse=True)
    assert jumps[0] > 1.3 > 0.7 > jumps[2]


def test_a_policy_that_does_not_sample_is_named():
    policy = planner("best_of_n", base=Sleeper(BOX))
    policy.reset([0])
    with pytest.warns(UserWarning, match="all 30 proposals of .* are equal: it does not sample"):
        policy.act(obs_of((0, 0)))


def test_a_degraded_policy_samples():
    policy = planner("best_of_n", base=Sleeper(BOX), base_degrade={"noise": 0.3})
    policy.reset([0])
    with warnings.catch_warnings(action="error"):
        policy.act(obs_of((-0.5, 0)))
    assert policy.decision_info["plan_value"][0] > -(GOAL - torch.tensor([-0.5, 0.0])).square().sum()


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("best_of_n", {"n": 0}, "n=0: expected a number between 1 and 100000"),
        ("best_of_n", {"n": 2.5}, "n=2.5: expected a whole number"),
        ("best_of_n", {"base": None}, "name one, base="),
        ("icem", {"horizon": 0}, "horizon=0: expected a number between 1 and 1000"),
        ("icem", {"execute": 7}, "execute=7: expected 1 to horizon=6"),
        ("icem", {"elites": 31}, "elites=31: expected 2 to samples=30"),
        ("mppi", {"samples": 1}, "samples=1: expected a number between 2"),
        ("mppi", {"temperature": 0.0}, "temperature=0.0: expected a number above 0"),
        ("gradient", {"lr": 0.0}, "lr=0.0: expected"),
        ("gradient", {"discount": 1.1}, "discount=1.1: expected a number above 0 and at most 1"),
        ("icem", {"std": -1.0, "uncertainty_penalty": -1.0}, "2 things are wrong"),
        ("icem", {"task": "fly"}, r"task='fly': this world knows \['reach'\]"),
    ],
)
def test_settings_out_of_range_are_refused_in_words(name, settings, expected):
    with pytest.raises(ValueError, match=expected):
        planner(name, **settings)


def test_an_unknown_setting_is_named_with_a_similar_one():
    with pytest.raises(TypeError, match=r"'horizn': this planner takes .* Did you mean 'horizon'"):
        planner("icem", horizn=3)


def test_actions_that_are_not_the_worlds_are_refused_in_words():
    three = gymnasium.spaces.Box(-np.ones(3, np.float32), np.ones(3, np.float32))
    with pytest.raises(ValueError, match="takes 3 actions, and the planner's world was trained on 2"):
        planner("icem", space=three)
    pixels = gymnasium.spaces.Box(np.zeros(2, np.float32), np.full(2, 512, np.float32))
    backward = replace(POINT, action_high=(0.01, 512.0))
    with pytest.raises(ValueError, match=r"dimension 0 .'x'. is .0, 512. in the .* other units"):
        planner("icem", PointModel(backward), space=pixels)
    in_pixels = replace(POINT, action_low=(-1.0, 0.0), action_high=(1.0, 512.0))
    with pytest.raises(ValueError, match=r"dimension 1 .'y'. is .-1, 1. in the"):
        planner("icem", PointModel(in_pixels))


def test_a_world_that_is_only_partly_steerable_can_be_planned_in():
    """What never moved in the recordings has no range to compare; the world ignores it."""
    stiff = replace(POINT, action_high=(1.0, -1.0))
    policy = planner("icem", PointModel(stiff))
    policy.reset([0])
    assert BOX.contains(policy.act(obs_of((0, 0)))[0])


def test_gradient_needs_a_differentiable_world():
    opaque = PointModel()
    opaque.differentiable = False
    with pytest.raises(ValueError, match="state_only=true"):
        planner("gradient", opaque)


def test_a_wrong_number_of_rows_is_refused():
    policy = planner("icem")
    policy.reset([0, 1])
    with pytest.raises(ValueError, match="reset with 2 seeds"):
        policy.act(obs_of((0, 0)))


class BrokenModel(PointModel):
    """A world that imagines NaN wherever it is sent beyond `broken_beyond`."""

    def __init__(self, broken_beyond: float) -> None:
        super().__init__()
        self.broken_beyond = broken_beyond

    def step(self, s, action):
        s, outcome = super().step(s, action)
        broken = action[:, 0] > self.broken_beyond
        return torch.where(broken[:, None], torch.nan, s), outcome._replace(
            reward=torch.where(broken, torch.nan, outcome.reward)
        )


@pytest.mark.parametrize("name", SMALL)
def test_a_plan_whose_imagination_broke_is_never_carried_out(name):
    """NaN was the highest of all values, and MPPI acted NaN."""
    acting = planner(name, BrokenModel(0.2))
    acting.reset([0, 1])
    obs = {"agent_pos": np.full((2, 2), -0.5, np.float32)}
    for _ in range(4):
        action = acting.act(obs)
        assert (action[:, 0] <= 0.2 + 1e-6).all()
        assert np.isfinite(acting.decision_info["plan_value"]).all()
    broken = planner(name, BrokenModel(-2.0))
    broken.reset([0])
    with pytest.raises(FloatingPointError, match="no number under every plan"):
        broken.act({"agent_pos": np.zeros((1, 2), np.float32)})


@pytest.mark.parametrize("name", SMALL)
def test_rows_that_are_over_plan_no_more(name):
    limits, model = (2, 2, 12), PointModel()
    acting = planner(name, model, execute=1)
    plans, plan = [], acting.plan
    acting.plan = lambda *given: plans.append(1) or plan(*given)
    acting.reset([0, 1, 2])
    obs = {"agent_pos": np.zeros((3, 2), np.float32)}
    alone = planner(name, execute=1)
    alone.reset([2])
    for step in range(12):
        acting.end_rows(np.array([step >= limit for limit in limits]))
        one, other = acting.act(obs)[2], alone.act({"agent_pos": obs["agent_pos"][2:]})[0]
        np.testing.assert_array_equal(one, other)  # what the others do is nothing to it
    assert len(plans) == sum(limits)
