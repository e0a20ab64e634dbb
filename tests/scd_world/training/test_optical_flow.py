"""How recorded pictures move: measured rightly, kept, handed to the training, and learnt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scd_datasets.store.loader import WindowLoader
from scd_datasets.store.store import WindowStore
from scd_world.training import optical_flow as measuring
from scd_world.training.optical_flow import episode_flow, optical_flow, pair_flow
from scd_world.training.trainer import train
from tests.scd_world.conftest import TINY


def scene(size: int = 128) -> np.ndarray:
    """A smooth colored picture without repetition, uint8 (size, size, 3)."""
    rng, axis = np.random.default_rng(0), np.linspace(0, 1, size)
    x, y = np.meshgrid(axis, axis)
    waves = sum(
        np.sin(2 * np.pi * (a * x + b * y) + c)[..., None] * rng.uniform(-1, 1, 3)
        for a, b, c in rng.uniform(-7, 7, (24, 3))
    )
    return np.clip(128 + 22 * waves, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(96, 64), (32, 48)])
def test_a_flow_says_from_where_each_place_comes(height, width):
    whole = scene()
    before, after = whole[10 : 10 + height, 10 : 10 + width], whole[12 : 12 + height, 7 : 7 + width]
    flow = pair_flow(before, after, (height // 8, width // 8))
    inside = flow[1:-1, 1:-1]
    np.testing.assert_allclose(inside[..., 0] * width, -3, atol=0.5)
    np.testing.assert_allclose(inside[..., 1] * height, 2, atol=0.5)
    assert inside[..., 2].min() > 0.7


def test_what_no_motion_explains_counts_for_nothing():
    rng = np.random.default_rng(1)
    before, after = rng.integers(0, 256, (2, 64, 64, 3), np.uint8)
    assert pair_flow(before, after, (8, 8))[..., 2].mean() < 0.3
    still = pair_flow(before, before, (8, 8))
    np.testing.assert_allclose(still[..., :2] * 64, 0, atol=0.05)
    assert still[..., 2].min() == 1


def test_cameras_move_apart_and_a_first_frame_comes_from_none():
    whole = scene()
    views = [np.stack([whole[9:73, i : i + 64], whole[i : i + 64, 9:73]]) for i in (4, 6)]
    flow = episode_flow(np.stack(views), (8, 8))
    assert flow.shape == (2, 2, 8, 8, 3)
    assert not flow[0].any()
    right, below = np.median(flow[1, :, 1:-1, 1:-1, :2] * 64, axis=(1, 2))
    np.testing.assert_allclose(np.stack([right, below]), [[2, 0], [0, 2]], atol=0.2)


def test_it_is_measured_once_for_a_recording_and_a_grid(slide_store, tmp_path, monkeypatch):
    store, out, calls = WindowStore.open(slide_store), tmp_path / "optical_flow.npz", []
    monkeypatch.setattr(measuring, "episode_flow", lambda *a: calls.append(1) or episode_flow(*a))
    first = optical_flow(store, (2, 4), out)
    assert first.shape[:1] == store.state.shape[:1]
    measured = len(calls)
    assert measured == len(store.lengths)
    assert np.array_equal(optical_flow(store, (2, 4), out), first)
    assert len(calls) == measured
    assert optical_flow(store, (4, 4), out).shape[2:4] == (4, 4)
    assert len(calls) == 2 * measured


def test_windows_have_the_flow_of_the_frames_that_they_predict(slide_store):
    store = WindowStore.open(slide_store)
    numbered = np.arange(len(store.state), dtype=np.float16)[:, None, None, None, None]
    loader = WindowLoader(store, np.arange(len(store.lengths)), 16, 3, seed=0, optical_flow=numbered)
    batch = loader.batch(0)
    for (episode, frame), of in zip(loader.addresses(0), batch["optical_flow"][..., 0, 0, 0, 0], strict=True):
        last = store.starts[episode] + store.lengths[episode] - 1
        assert of.tolist() == [min(store.starts[episode] + frame + i, last) for i in (1, 2, 3)]


def test_a_training_learns_it_and_goes_on_from_what_it_kept(training, monkeypatch):
    config = training(model=replace(TINY, head="conv", optical_flow=True), steps=2)
    folder = train(config).parent
    assert (folder / "optical_flow.npz").is_file()
    assert "optical_flow" in (folder / "log.jsonl").read_text()
    monkeypatch.setattr(measuring, "episode_flow", None)  # is not asked again
    train(replace(config, steps=4))
