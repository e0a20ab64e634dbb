"""Still moments are where nothing moves, and the drift there is the imagination's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scd_datasets.store.arrays import EpisodeArrays
from scd_datasets.store.store import WindowStore
from scd_datasets.store.writer import write_store
from scd_world.evaluation.config import EvaluateConfig
from scd_world.evaluation.open_loop import Window
from scd_world.evaluation.report import still_lines
from scd_world.evaluation.standing_still import FEWEST, find_still_moments, standing_still
from tests.conftest import filled, make_model, make_stats
from tests.scd_world.conftest import SLIDE, TINY, slide_episode

LENGTH, RESTS = 40, slice(15, 32)  # frames 15 … 31 are equal
REST_ACTION = 0.25


def resting_episode(index: int, rests: bool = True, blinks: bool = False) -> EpisodeArrays:
    """The square slides, stops where it is, and slides on; blinks: the picture changes all the same."""
    episode = slide_episode(index, LENGTH)
    if not rests:
        return episode
    state, pixels, action = episode.state.copy(), episode.pixels.copy(), episode.action.copy()
    state[RESTS], pixels[RESTS] = state[RESTS.start], pixels[RESTS.start]
    action[RESTS] = REST_ACTION
    action[RESTS.start + 6] = 1.0  # one outlier: a median is none the worse for it
    pixels[RESTS.stop :, :, :5] = 90  # whatever slides on looks different
    if blinks:
        pixels[RESTS][::2] = 255 - pixels[RESTS][::2]
    return replace(episode, state=state, pixels=pixels, action=action)


def make_store(path: Path, **kinds: bool) -> WindowStore:
    return WindowStore.open(write_and_path(path, (resting_episode(i, **kinds) for i in range(3))))


def write_and_path(path: Path, episodes) -> Path:
    write_store(path, replace(SLIDE, horizon=LENGTH), episodes)
    return path


@pytest.fixture
def store(tmp_path) -> WindowStore:
    return make_store(tmp_path / "rests.zarr")


@pytest.fixture
def still_world(world, store):
    schema = store.schema
    stats = make_stats(schema)
    return replace(world, model=filled(make_model(TINY, schema, stats)).eval(), stats=stats)


def config(**changes) -> EvaluateConfig:
    return EvaluateConfig(
        **({"world": "w", "out": "o", "context": 4, "horizon": 20, "batch_size": 2} | changes)
    )


def test_a_moment_is_still_from_its_first_shown_frame_to_its_last_recorded_one(store):
    moments = find_still_moments(store, np.arange(3), context=4, horizon=64, most=16)
    first_shown, last = RESTS.start, RESTS.stop - 1
    assert [(w.frame, w.steps) for w in moments] == [(first_shown + 3, last - first_shown - 3)] * 3
    assert len(find_still_moments(store, np.arange(3), 4, 64, most=2)) == 2
    for horizon in (9, 3):
        assert {w.steps for w in find_still_moments(store, np.arange(3), 4, horizon, most=3)} == {horizon}


@pytest.mark.parametrize("kinds", [{"rests": False}, {"blinks": True}])
def test_what_moves_or_only_looks_different_is_not_still(tmp_path, kinds):
    """A state that rests says nothing of what else moves in the picture."""
    store = make_store(tmp_path / "moves.zarr", **kinds)
    assert find_still_moments(store, np.arange(3), 4, 64, most=16) == []


def test_a_rest_that_is_too_short_to_tell_is_none(store):
    longest = RESTS.stop - RESTS.start
    assert find_still_moments(store, np.arange(3), longest - FEWEST, 64, most=16)
    assert not find_still_moments(store, np.arange(3), longest - FEWEST + 1, 64, most=16)


def test_pictures_alone_can_stand_still_too(tmp_path):
    schema = replace(SLIDE, agent_pos=(), reward=False, success=False, horizon=LENGTH)
    episodes = [replace(e, state=e.state[:, :0]) for e in map(resting_episode, range(2))]
    path = tmp_path / "blind.zarr"
    write_store(path, schema, iter(episodes))
    moments = find_still_moments(WindowStore.open(path), np.arange(2), 4, 64, most=16)
    assert [w.frame for w in moments] == [RESTS.start + 3] * 2


def test_drift_counts_from_the_last_shown_and_from_the_first_imagined_frame(store, still_world, monkeypatch):
    """One gray level brighter at every step, under the action that the recordings stood still under."""
    moments = find_still_moments(store, np.arange(3), 4, 20, most=3)
    held = []

    def brighter(s, action, noise, num_steps):
        held.append(action)
        return replace(s, obs=s.obs + 2 / 255)

    monkeypatch.setattr(still_world, "step", brighter)
    counted = []
    found = standing_still(still_world, store, moments, config(), counted.append)
    assert found["steps"] == [1, 16]
    np.testing.assert_allclose(found["from_last_shown"], [1, 16], atol=1e-4)
    np.testing.assert_allclose(found["from_first_imagined"], [0, 15], atol=1e-4)
    assert found["recorded"] == [0, None]  # the recordings went on after 13 frames
    assert sum(counted) == 3 * 20
    torch.testing.assert_close(torch.cat(held), torch.full((60, 1), REST_ACTION))
    (line,) = still_lines({"standing_still": found})
    assert "1.00 at step 1, 16.0 at step 16 (recorded, while it lasted: 0 at step 1)" in line


def test_no_result_depends_on_the_batch(store, still_world):
    moments = find_still_moments(store, np.arange(3), 4, 20, most=3)
    one, three = (
        standing_still(still_world, store, moments, config(batch_size=size), len_of) for size in (1, 3)
    )
    np.testing.assert_allclose(one["from_last_shown"], three["from_last_shown"], atol=0.05)
    assert one["from_last_shown"][1] > 1  # random weights hold nothing still


def len_of(count: int) -> None:
    """Counts nothing."""


def test_where_nothing_stands_still_it_is_said(store, still_world):
    assert standing_still(still_world, store, [], config(), len_of) is None
    assert "no held-out moment" in still_lines({"standing_still": None})[0]
    assert still_lines({"standing_still": {}}) == []  # not asked for
    assert isinstance(find_still_moments(store, np.arange(1), 4, 20, 1)[0], Window)


def test_of_a_long_episode_a_few_pictures_are_kept_at_a_time(store, monkeypatch):
    """Whole episodes of several cameras are gigabytes, and most of them move."""
    expected = find_still_moments(store, np.arange(3), 4, 9, most=16)
    monkeypatch.setattr("scd_world.evaluation.standing_still.FRAMES_AT_ONCE", 4)
    read, rows = store.pixels_of_rows, []
    monkeypatch.setattr(store, "pixels_of_rows", lambda wanted: rows.extend(wanted) or read(wanted))
    assert find_still_moments(store, np.arange(3), 4, 9, most=16) == expected
    assert len(rows) == len(set(rows)) < store.lengths.sum()  # each once, and by far not all
    last = RESTS.stop + 9 + 4
    assert all(int(row) % LENGTH < last for row in rows)
