"""A recorder's dropped frames are found by how far the robot went."""

import numpy as np
import pytest
import torch

from scd_world.robot_data.clip import steady
from scd_world.robot_data.dropped_frames import find_dropped_frames, steady_stretches

EPISODES, STEPS, JOINTS = 8, 60, 3


def smooth(rng: np.random.Generator, steps: int) -> np.ndarray:
    """Commands that change a little from step to step, (steps, JOINTS)."""
    t = np.arange(steps)[:, None] / 12
    return np.sin(t * rng.uniform(0.5, 1.5, JOINTS) + rng.uniform(0, 6, JOINTS)).astype(np.float32)


def velocity_control(command: np.ndarray) -> np.ndarray:
    """States of joints that go a tenth of their command in a step."""
    return np.cumsum(np.concatenate([np.zeros((1, JOINTS)), 0.1 * command[:-1]]), axis=0)


def position_control(command: np.ndarray) -> np.ndarray:
    """States of joints that go half of what they lack to their command in a step."""
    state = [command[0]]
    for target in command[:-1]:
        state.append(state[-1] + 0.5 * (target - state[-1]))
    return np.stack(state)


def record(control, dropped: dict[int, int], noise: float = 1e-3, still: slice = slice(0)):
    """Gives states, actions, starts, lengths, and after which rows a frame was dropped. dropped: by episode
    the row that was not recorded."""
    rng = np.random.default_rng(0)
    states, actions, missing, lengths = [], [], [], []
    for episode in range(EPISODES):
        command = smooth(rng, STEPS)
        command[still] = 0.0
        state = control(command) + noise * rng.standard_normal((STEPS, JOINTS))
        kept, after = np.ones(STEPS, bool), np.zeros(STEPS, bool)
        if episode in dropped:
            kept[dropped[episode]], after[dropped[episode] - 1] = False, True
        states.append(state[kept])
        actions.append(command[kept])
        missing.append(after[kept])
        lengths.append(kept.sum())
    lengths = np.array(lengths)
    state, action = (np.concatenate(x).astype(np.float32) for x in (states, actions))
    return state, action, np.cumsum(lengths) - lengths, lengths, np.concatenate(missing)


@pytest.mark.parametrize("control", [velocity_control, position_control])
def test_where_a_frame_is_missing_the_robot_goes_twice_as_far(control):
    *recorded, missing = record(control, {0: 20, 3: 31, 4: 44, 7: 9})
    assert missing.sum() == 4
    assert np.array_equal(find_dropped_frames(*recorded), missing)


@pytest.mark.parametrize("control", [velocity_control, position_control])
def test_without_a_missing_frame_none_is_found(control):
    """Nor in measurements that tremble, nor where a command says by itself to go twice as far."""
    for noise in (0.0, 1e-3, 1e-2):
        assert not find_dropped_frames(*record(control, {}, noise)[:-1]).any()
    state, action, starts, lengths, _ = record(velocity_control, {})
    action = action.copy()
    action[30::STEPS] *= 2
    state = np.concatenate([velocity_control(part) for part in np.split(action, starts[1:])])
    assert not find_dropped_frames(state.astype(np.float32), action, starts, lengths).any()


def test_what_stops_a_robot_or_pushes_it_aside_is_no_missing_frame():
    state, action, starts, lengths, _ = record(velocity_control, {})
    state = state.copy()
    for episode, (first, push) in enumerate([(20, 0.0), (25, -0.2), (30, 0.3)]):
        at = starts[episode] + first
        state[at : starts[episode] + lengths[episode]] -= state[at] - state[at - 1]  # it stays for one step
        state[at : starts[episode] + lengths[episode], 0] += push
    assert not find_dropped_frames(state, action, starts, lengths).any()


def test_while_a_robot_stands_still_nobody_can_tell():
    *recorded, missing = record(velocity_control, {1: 25, 2: 50}, still=slice(15, 35))
    found = find_dropped_frames(*recorded)
    assert missing.sum() == 2
    assert found.sum() == 1
    assert missing[found].all()


@pytest.mark.parametrize(("S", "A", "rows"), [(0, 3, 200), (3, 0, 200), (3, 3, 50), (3, 3, 0)])
def test_of_too_little_nothing_is_said(S, A, rows):
    rng = np.random.default_rng(0)
    state, action = (rng.standard_normal((rows, n)).astype(np.float32) for n in (S, A))
    lengths = np.array([rows] if rows else [], int)
    found = find_dropped_frames(state, action, np.cumsum(lengths) - lengths, lengths)
    assert found.shape == (rows,)
    assert not found.any()


def test_a_number_that_never_changes_says_nothing():
    state, action, starts, lengths, missing = record(velocity_control, {0: 20, 3: 31})
    state, action = (np.concatenate([x, np.full_like(x[:, :1], 7.0)], axis=1) for x in (state, action))
    assert np.array_equal(find_dropped_frames(state, action, starts, lengths), missing)


def test_an_episode_is_cut_where_a_frame_is_missing():
    """The row after it is in no stretch, for the step before it was two; nor is anything lost besides."""
    dropped = np.zeros(30, bool)
    dropped[[3, 4, 12, 18]] = True
    first, lengths = steady_stretches(dropped, np.array([0, 10, 20]), np.array([10, 10, 10]))
    rows = [list(range(f, f + n)) for f, n in zip(first, lengths, strict=True)]
    assert rows == [[0, 1, 2, 3], [6, 7, 8, 9], [10, 11, 12], [14, 15, 16, 17, 18], list(range(20, 30))]
    assert [part.tolist() for part in steady_stretches(dropped[:0], *np.zeros((2, 0), int))] == [[], []]


def test_steps_are_steady_up_to_a_missing_frame():
    dropped = torch.tensor([[0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 1]]).bool()
    assert steady(dropped).int().tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]
