"""Batches are a pure function of (seed, step), whoever asks, and statistics see training episodes only."""

import logging
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from scd_datasets.store.loader import WindowLoader, prefetch
from scd_datasets.store.statistics import compute_stats, transitions
from scd_datasets.store.writer import write_store
from scd_world.robot_data.clip import Clip

EVERY = np.arange(4)


def same(a, b):
    return all(torch.equal(a[name].nan_to_num(7), b[name].nan_to_num(7)) for name in a)


def test_a_batch_depends_on_seed_and_step_alone(store):
    loader = WindowLoader(store, EVERY, 8, 5, seed=1)
    fifth = loader.batch(5)
    loader.batch(0)
    assert same(fifth, loader.batch(5))
    assert same(fifth, WindowLoader(store, EVERY, 8, 5, seed=1).batch(5))
    assert not same(fifth, loader.batch(6))
    assert not same(fifth, WindowLoader(store, EVERY, 8, 5, seed=2).batch(5))


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_cut_the_batch_of_one_process(store, world_size):
    whole = WindowLoader(store, EVERY, 8, 5, seed=1).batch(3)
    parts = [
        WindowLoader(store, EVERY, 8, 5, 1, rank=r, world_size=world_size).batch(3) for r in range(world_size)
    ]
    assert same(whole, {name: torch.cat([part[name] for part in parts]) for name in whole})


def test_an_anchor_is_an_earlier_frame_of_the_windows_episode_and_changes_nothing_else(store):
    plain, loader = (
        WindowLoader(store, EVERY, 64, 5, seed=1),
        WindowLoader(store, EVERY, 64, 5, 1, anchors=True),
    )
    batch = loader.batch(3)
    anchor, *states = (batch.pop(f"anchor{of}").numpy() for of in ("", "_state", "_prev"))
    assert same(batch, plain.batch(3))
    lags = []
    for (episode, frame), picture, state, prev in zip(loader.addresses(3), anchor, *states, strict=True):
        shown = store.frames(np.full(frame + 1, episode), np.arange(frame + 1))
        found = np.flatnonzero((shown == picture).all((1, 2, 3, 4)))[-1]
        lags.append(found - frame)
        row, first = store.starts[episode] + found, found == 0
        assert (store.state[row] == state).all()
        assert (np.r_[store.state[row - 1], store.action[row - 1]] == prev).all() or first
        assert np.isnan(prev[len(state) :]).all() == first
    assert max(lags) <= 0
    assert min(lags) < -5
    parts = [
        WindowLoader(store, EVERY, 64, 5, 1, rank=r, world_size=2, anchors=True).batch(3) for r in (0, 1)
    ]
    assert (np.concatenate([part["anchor"] for part in parts]) == anchor).all()


def test_an_anchor_is_as_near_as_the_step_asks_for(store):
    near, any_frame = (
        WindowLoader(store, EVERY, 64, 5, 1, anchors=True, anchor_distance=distance)
        for distance in (lambda step: step, None)
    )
    for step, most in ((0, 0), (2, 2), (3, 3), (10_000, 10_000)):
        batch = near.batch(step)
        lags = []
        for (episode, frame), picture in zip(near.addresses(step), batch["anchor"].numpy(), strict=True):
            shown = store.frames(np.full(frame + 1, episode), np.arange(frame + 1))
            lags.append(frame - np.flatnonzero((shown == picture).all((1, 2, 3, 4)))[-1])
        assert max(lags) <= most
        assert most > 3 or set(lags) == set(range(most + 1))
    assert (batch["anchor"] == any_frame.batch(step)["anchor"]).all()


def test_a_batch_that_ranks_cannot_share_is_refused(store):
    with pytest.raises(ValueError, match="8 does not divide by 3"):
        WindowLoader(store, EVERY, 8, 5, 1, world_size=3)


def test_short_episodes_are_left_out_and_said(store, caplog):
    with caplog.at_level(logging.WARNING):
        loader = WindowLoader(store, EVERY, 8, 15, seed=0)
    assert "2 of 4 episodes are shorter than 15 steps" in caplog.text
    assert set(loader.windows[:, 0]) == {1, 3}
    with pytest.raises(ValueError, match="the longest has 30"):
        WindowLoader(store, EVERY, 8, 31, seed=0)


def test_motion_share_draws_windows_in_which_the_block_moves(store):
    loader = WindowLoader(store, EVERY, 32, 3, seed=0, motion_share=1.0)
    block = loader.batch(0)["state"][..., -1]
    assert ((block[:, 1:] != block[:, :-1]).any(1)).all()
    drawn = np.concatenate(
        [WindowLoader(store, EVERY, 64, 3, 0, motion_share=0).addresses(i) for i in range(9)]
    )
    assert {tuple(row) for row in drawn} == {tuple(row) for row in loader.windows}


def test_motion_by_pixels_where_no_environment_state_is_recorded(tmp_path, schema, store, numbered):
    plain = replace(schema, environment_state=())
    rows = [slice(start, start + length) for start, length in zip(store.starts, store.lengths, strict=True)]
    episodes = []
    for i, row in enumerate(rows):
        episode = numbered(i, row.stop - row.start, schema)
        pixels = episode.pixels.copy()
        pixels[: len(pixels) * 3 // 4] = pixels[0]  # still for three quarters
        episodes.append(replace(episode, state=episode.state[:, :2], pixels=pixels))
    loader = WindowLoader(
        write_store(tmp_path / "plain.zarr", plain, episodes), EVERY, 32, 3, 0, motion_share=1.0
    )
    pixels = loader.batch(0)["pixels"]
    assert (pixels[:, 1:] != pixels[:, :-1]).flatten(1).any(1).all()


def test_prefetch_gives_the_loaders_batches_and_passes_errors_on(store, monkeypatch):
    loader = WindowLoader(store, EVERY, 4, 5, seed=0)
    for step, batch in enumerate(islice(prefetch(loader, 7), 4), start=7):
        assert same(batch, loader.batch(step))
    monkeypatch.setattr(loader, "batch", lambda step: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(prefetch(loader, 0))


def test_statistics_see_training_episodes_only(store):
    stats = compute_stats(store, np.array([0, 2]))
    assert stats.action_low.tolist() == [0, -2006]
    assert stats.action_high.tolist() == [2006, 0]
    assert stats.state_low.tolist() == [0, 0, 3]
    assert stats.background.shape == (6, 8, 12)
    rewards = np.r_[np.arange(12), 2000 + np.arange(7)]
    assert stats.reward_mean.item() == pytest.approx(rewards.mean())
    assert stats.reward_std.item() == pytest.approx(rewards.std())
    # x rises by 1 every frame, and never jumps from one episode to the next
    assert stats.state_delta_rms[0].item() == pytest.approx(2 / 2006, rel=1e-5)


def test_what_is_constant_but_for_rounding_errors_has_no_range(store):
    """They grow with the values: of 800 mm a float32 knows no more than 6e-5."""
    noise = np.random.default_rng(0).integers(0, 2, len(store.state)).astype(np.float32) * np.float32(6.1e-5)
    store.state[:, 2] = np.float32(800) + noise
    assert np.ptp(store.state[:, 2]) > 0
    normalizer = compute_stats(store, EVERY)
    assert normalizer.encode_state(torch.from_numpy(store.state))[:, 2].abs().max() < 1e-3
    assert normalizer.state_delta_rms[2] < 1e-3
    store.state[:, 2] = 800 + 0.01 * noise / noise.max()  # a hundredth of a millimeter is something
    assert compute_stats(store, EVERY).encode_state(torch.from_numpy(store.state))[:, 2].abs().max() > 0.9


def test_background_is_each_pixels_median(store):
    background = compute_stats(store, np.array([1])).background
    gray = (background + 1) * 127.5
    assert gray[0].unique().item() == pytest.approx(1)  # the episode's number
    assert gray[1].unique().item() == pytest.approx(15)  # the middle of 30 frames
    assert gray[5].unique().item() == pytest.approx(1)  # the second camera


def drop_frames(store, *rows):
    """Tells the store that after these rows a frame is missing."""
    store.dropped = np.isin(np.arange(len(store.action)), rows)


def test_nothing_is_learned_across_a_dropped_frame(store):
    """Neither the step to the next row nor that one's own, whose velocity is that of two steps; and the usual
    change is that of one."""
    before = transitions(store, EVERY, normalizer := compute_stats(store, EVERY))
    row = int(store.starts[1]) + 4
    store.state[row + 1 : store.starts[2], 0] += 1000.0
    jumped = compute_stats(store, EVERY).state_delta_rms[0]
    drop_frames(store, row)
    after = transitions(store, EVERY, normalizer)
    assert len(after[1]) == len(before[1]) - 2
    went = (after[3] - after[1])[:, 0]  # a row's first number rises by 1 in each step, in all of them
    assert went.max() < 1.1 * went.min()
    velocity = after[1][:, 0] - after[0][:, 0]
    assert velocity.max() < 1.1 * velocity.min()
    assert compute_stats(store, EVERY).state_delta_rms[0] < jumped / 2


def test_of_a_clip_what_follows_a_dropped_frame_is_not_valid(store):
    drop_frames(store, int(store.starts[1]) + 6)
    windows = store.windows(np.array([1, 1, 1]), np.array([2, 6, 7]), 5)
    assert windows["valid"].all()
    clip = Clip.from_windows(
        {k: torch.from_numpy(v) for k, v in windows.items()}, compute_stats(store, EVERY)
    )
    assert clip.valid.int().tolist() == [[1, 1, 1, 1, 0], [0] * 5, [1] * 5]


def test_a_batch_becomes_a_clip(store):
    loader = WindowLoader(store, EVERY, 4, 5, seed=0)
    clip = Clip.from_windows(loader.batch(0), compute_stats(store, EVERY))
    assert clip.obs.shape == (4, 6, 6, 8, 12)
    assert clip.action.abs().max() <= 1 + 1e-6
