"""The recipe that improves a policy inside a world: it goes on as if it had never been stopped."""

import io
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

from stable_baselines3 import PPO

RECIPE = Path(__file__).parents[2] / "recipes" / "rl"


@pytest.fixture(scope="module")
def recipe():
    """The recipe's modules, found as when one of them is run."""
    sys.path.insert(0, str(RECIPE))
    names = ("view", "actor", "inside", "judge", "improve")
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
def test_stopped_and_gone_on_it_learns_the_same(recipe, pusht, view, tmp_path, monkeypatch):
    for module in ("judge", "improve"):
        monkeypatch.setattr(recipe[module], "MAX_STEPS", 6)
    improve, Settings = recipe["improve"].improve, recipe["improve"].Settings
    settings = Settings(
        rows=4, rollout=8, batch_size=16, epochs=2, warm_up=1, max_uncertainty=0.02,
        steps=96, evaluate_every=3, checkpoint_every=1, episodes=2,
    )  # fmt: skip
    starts = pusht.starts.addresses

    def learn(out, **changes):
        judged = improve(out, pusht, starts, view, replace(settings, **changes), lambda model: None)
        saved = torch.load(out / "checkpoint.pt", weights_only=False)
        weights = PPO.load(io.BytesIO(saved["learner"]), device="cpu").policy.state_dict()
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


def test_only_the_value_learns_at_first(recipe, pusht, view):
    """An untrained value would drive the cloned actor away before it knows anything."""
    improve = recipe["improve"]
    settings = improve.Settings(rows=2, rollout=8, batch_size=16, epochs=1)
    model = improve.make_learner(improve.make_envs(pusht, pusht.starts.addresses, settings, view), settings)

    def parts():
        return [
            [p.detach().clone() for p in part.parameters()]
            for part in (model.policy.action_net, model.policy.value_net)
        ]

    before = parts()
    improve.actor_learns(model, False)
    model.learn(16)
    held = parts()
    improve.actor_learns(model, True)
    model.learn(16)
    after = parts()
    assert all(torch.equal(a, b) for a, b in zip(before[0], held[0], strict=True))
    assert not torch.equal(before[1][0], held[1][0])
    assert not torch.equal(held[0][0], after[0][0])
