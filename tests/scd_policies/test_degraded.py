"""Degradations do what their names say, to any policy, row by row."""

import gymnasium
import numpy as np
import pytest

from scd_policies.degraded import Degradation, DegradedPolicy

BOX = gymnasium.spaces.Box(-10, 10, (2,), np.float32)


class Counting:
    """Acts 0, 1, 2, … in every row."""

    def reset(self, seeds):
        self.rows, self.step = len(seeds), -1

    def act(self, obs):
        self.step += 1
        return np.full((self.rows, 2), self.step, np.float32)


def played(steps=6, seeds=(1, 2), **degradation):
    policy = DegradedPolicy(Counting(), BOX, Degradation(**degradation))
    policy.reset(seeds)
    return np.stack([policy.act({}) for _ in range(steps)])  # (steps, rows, 2)


def test_without_degradation_nothing_changes():
    np.testing.assert_array_equal(played()[:, 0, 0], [0, 1, 2, 3, 4, 5])


def test_a_delay_repeats_the_first_action_and_then_runs_behind():
    np.testing.assert_array_equal(played(delay=2)[:, 0, 0], [0, 0, 0, 1, 2, 3])


def test_a_slow_policy_makes_a_share_of_the_way():
    np.testing.assert_allclose(played(slow=0.5, steps=4)[:, 0, 0], [0, 0.5, 1.25, 2.125])


def test_an_offset_is_added_and_stays_inside_the_space():
    actions = played(offset=(8, -1))
    np.testing.assert_array_equal(actions[:, 0, 0], [8, 9, 10, 10, 10, 10])
    np.testing.assert_array_equal(actions[:, 0, 1], [-1, 0, 1, 2, 3, 4])


def test_a_policy_that_stops_repeats_its_last_action():
    np.testing.assert_array_equal(played(stop_after=3)[:, 0, 0], [0, 1, 2, 2, 2, 2])
    np.testing.assert_array_equal(played(stop_after=3, delay=1)[:, 0, 0], [0, 0, 1, 1, 1, 1])


def test_noise_belongs_to_the_episodes_seed():
    alone, together = played(seeds=(2,), noise=0.5), played(seeds=(1, 2), noise=0.5)
    np.testing.assert_array_equal(alone[:, 0], together[:, 1])
    assert not np.array_equal(together[:, 0], together[:, 1])
    assert 0.2 < (together - played()).std() < 1


def test_an_episode_leaves_nothing_behind():
    policy = DegradedPolicy(Counting(), BOX, Degradation(delay=2, slow=0.5, noise=0.1, stop_after=3))
    first, again = [], []
    for kept in (first, again):
        policy.reset([4])
        kept += [policy.act({}) for _ in range(5)]
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(
    "impossible", [{"delay": -1}, {"slow": 0}, {"slow": 2}, {"noise": -1}, {"stop_after": 0}]
)
def test_impossible_degradations_are_refused(impossible):
    with pytest.raises(ValueError, match=next(iter(impossible))):
        Degradation(**impossible)


def test_an_offset_of_another_size_than_the_action_is_refused():
    with pytest.raises(ValueError, match="offset has 3 values, an action 2"):
        DegradedPolicy(Counting(), BOX, Degradation(offset=(1, 2, 3)))


class Remembering(Counting):
    """Notes what it is told of what was done."""

    def __init__(self):
        self.told, self.over = [], []

    def replace_action(self, action):
        self.told.append(action)

    def end_rows(self, over):
        self.over.append(over)

    @property
    def decision_info(self):
        return {"certainty": np.full(self.rows, 0.5 + self.step)}


def test_the_policy_learns_what_was_done_and_what_it_says_is_passed_on():
    """A planner went on from actions that nobody had taken."""
    inner = Remembering()
    policy = DegradedPolicy(inner, BOX, Degradation(delay=1, offset=(1.0, 0.0)))
    policy.reset([1, 2])
    actions = [policy.act({}) for _ in range(3)]
    np.testing.assert_array_equal(inner.told, actions)
    assert policy.decision_info["certainty"].tolist() == [2.5, 2.5]
    policy.end_rows(np.array([True, False]))
    assert inner.over[0].tolist() == [True, False]
    assert played(delay=1).shape == (6, 2, 2)  # and one that asks for none of it is asked for nothing


def test_an_offset_that_is_one_number_is_answered_in_words():
    with pytest.raises(ValueError, match=r"offset has one value for each dimension .*offset: \[\[5, 0\]\]"):
        Degradation(offset=5.0)
