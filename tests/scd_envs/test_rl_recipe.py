"""The recipe that improves a policy inside a world: it goes on as if it had never been stopped."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import scd_envs
from scd_envs.simulators.pusht import GOAL_POSE, block_keypoints
from scd_world.world.world import World

pytest.importorskip(
    "stable_baselines3", reason="Stable-Baselines3 is an extra: pip install 'lerobot_env_scd_world[sb3]'"
)

RECIPE = Path(__file__).parents[2] / "recipes" / "rl"


@pytest.fixture(scope="module")
def recipe():
    """The recipe's modules, found as when one of them is run."""
    sys.path.insert(0, str(RECIPE))
    names = ("view", "actor", "learners", "cloning", "inside", "judge", "improve")
    yield {name: __import__(name) for name in names}
    sys.path.remove(str(RECIPE))
    for name in names:
        del sys.modules[name]


@pytest.fixture(scope="module")
def pusht():
    return World.load(scd_envs.PUSHT_WORLD)


@pytest.fixture(scope="module")
def view(recipe, pusht):
    low, high = (np.array(bound, np.float32) for bound in pusht.schema.action_bounds)
    return recipe["view"].BlockView(block_keypoints(GOAL_POSE)[None], low, high)


def test_an_answer_leads_to_the_action_that_it_was_read_off(recipe, pusht, view):
    """In another frame than it was cloned in, a policy would push past the block."""
    state = pusht.starts.state
    action = np.clip(state[:, :2] + np.random.default_rng(0).uniform(-80, 80, (len(state), 2)), 1, 512)
    np.testing.assert_allclose(view.action(state, view.answer(state, action)), action, atol=1e-2)
    # A block that lies elsewhere, with all that is around it, is answered alike.
    moved = np.tile([7.0, -4.0], 9)
    np.testing.assert_allclose(
        view.answer(state + moved, action + moved[:2]), view.answer(state, action), atol=1e-4
    )
    assert view.distance(np.r_[state[0, :2], block_keypoints(GOAL_POSE)][None]) == pytest.approx(0, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_stopped_and_gone_on_it_learns_the_same(recipe, pusht, view, tmp_path, monkeypatch, algorithm):
    for module in ("judge", "improve"):
        monkeypatch.setattr(recipe[module], "MAX_STEPS", 6)
    improve, learners = recipe["improve"].improve, recipe["learners"]
    settings = learners.Settings(
        algorithm=algorithm, gradient_steps=2, memory=64, rows=4, rollout=8, batch_size=16, epochs=2,
        warm_up=1, max_uncertainty=0.02, steps=96, evaluate_every=3, checkpoint_every=1, episodes=2,
    )  # fmt: skip
    starts = pusht.starts.addresses

    def learn(out, **changes):
        judged = improve(out, pusht, starts, view, replace(settings, **changes), lambda model: None)
        saved = torch.load(out / "checkpoint.pt", weights_only=False)
        weights = learners.from_bytes(saved, settings).policy.state_dict()
        saved["learner_state"] = {name: weight.tolist() for name, weight in weights.items()}
        return judged, saved

    whole, saved = learn(tmp_path / "whole")
    learn(tmp_path / "parts", steps=32)
    torch.manual_seed(123)  # as another process would have it
    parts, saved_parts = learn(tmp_path / "parts")
    times = recipe["improve"].TIMES
    last, last_of_parts = ({k: v for k, v in one[-1].items() if k not in times} for one in (whole, parts))
    assert last == last_of_parts
    assert saved["learner_state"] == saved_parts["learner_state"]
    for name in ("state", "last", "reward"):
        np.testing.assert_array_equal(saved["envs"][name], saved_parts["envs"][name])
    assert [one["steps"] for one in whole] == [0, 96]
    with pytest.raises(ValueError, match=r"lr was 0.0003, now 0.1"):
        learn(tmp_path / "parts", lr=0.1)


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_only_the_value_learns_at_first(recipe, pusht, view, algorithm):
    """An untrained value would drive the cloned actor away before it knows anything."""
    learners = recipe["learners"]
    settings = learners.Settings(algorithm=algorithm, rows=2, rollout=8, batch_size=16, epochs=1)
    envs = recipe["improve"].make_envs(pusht, pusht.starts.addresses, settings, view)
    model = learners.make_learner(envs, settings)

    def parts():
        value = model.policy.critic if algorithm == "sac" else model.policy.value_net
        return [
            [p.detach().clone() for p in part.parameters()]
            for part in (learners.actor_parts(model.policy)[-1], value)
        ]

    before = parts()
    learners.actor_learns(model, False)
    model.learn(16)
    held = parts()
    learners.actor_learns(model, True)
    model.learn(16)
    after = parts()
    assert all(torch.equal(a, b) for a, b in zip(before[0], held[0], strict=True))
    assert not torch.equal(before[1][0], held[1][0])
    assert not torch.equal(held[0][0], after[0][0])


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_a_learner_begins_as_its_clone(recipe, pusht, view, tmp_path, algorithm):
    """What is cloned must survive the file and the learner's own networks: scales, squashing, noise."""
    learners, cloning = recipe["learners"], recipe["cloning"]
    rng = np.random.default_rng(0)
    seen = rng.normal(3, 2, (512, recipe["view"].SIZE)).astype(np.float32)
    answer = np.clip(seen[:, :2] / 3, -2.5, 2.5)
    policy, loss = cloning.clone(algorithm, seen, answer, steps=300)
    assert loss < 0.3 < np.abs(answer - np.median(answer, 0)).mean()
    cloning.save_clone(tmp_path / "clone.pt", policy)
    settings = learners.Settings(algorithm=algorithm, rows=2, batch_size=64)
    envs = recipe["improve"].make_envs(pusht, pusht.starts.addresses, settings, view)
    model = learners.make_learner(envs, settings)
    cloning.load_clone(tmp_path / "clone.pt", model.policy)
    theirs, ours = (one.predict(seen, deterministic=True)[0] for one in (policy, model.policy))
    np.testing.assert_array_equal(theirs, ours)
    np.testing.assert_allclose(
        learners.mean_answer(model.policy, torch.from_numpy(seen)).detach().clip(-3, 3), ours, atol=1e-5
    )
    torch.manual_seed(0)
    drawn = np.stack([model.policy.predict(seen, deterministic=False)[0] for _ in range(32)])
    near = np.abs(answer).max(1) < 0.5  # where tanh hardly squeezes the noise
    assert drawn[:, near].std(0).mean() == pytest.approx(np.exp(settings.log_std), rel=0.15)
