"""Exported windows: each frame beside its own truth, every draw, and curves at the frames they describe."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scd_datasets.store.store import WindowStore
from scd_world.evaluation.evaluate import Evaluator
from scd_world.evaluation.exports import window_plots, write_recordings
from scd_world.evaluation.open_loop import load_batch, spread_windows
from tests.scd_world.evaluation.test_evaluate import make_world, settings


@pytest.fixture
def store(slide_store) -> WindowStore:
    return WindowStore.open(slide_store)


def frames_in(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("frame_*.png"))])


def run(store, **changes):
    config = settings(**changes)
    windows = spread_windows(store, np.array([2, 5]), config)
    evaluator = Evaluator(make_world(store), store, windows, config)
    loop, _, _, videos = evaluator.open_loop()
    return config, loop, videos


def test_every_window_and_draw_becomes_a_folder(store, tmp_path):
    """In two batches, and once more with fewer windows: worldproof reports on whatever lies there."""
    root = tmp_path / "worldproof"
    _, loop, videos = run(store, worldproof=True, out=str(tmp_path), draws=2, batch_size=3, num_videos=4)
    assert sorted(path.name for path in root.iterdir()) == [f"window_{i:04d}_0" for i in range(4)]
    for folder, window, video in zip(sorted(root.iterdir()), loop.windows, videos, strict=True):
        at = store.starts[window.episode] + window.frame
        np.testing.assert_array_equal(frames_in(folder / "context"), video.true[:3, 0])
        np.testing.assert_array_equal(frames_in(folder / "ground_truth"), video.true[3:, 0])
        np.testing.assert_array_equal(frames_in(folder / "predictions" / "sample_00"), video.imagined[3:, 0])
        other = frames_in(folder / "predictions" / "sample_01")
        assert other.shape == video.imagined[3:, 0].shape
        assert (other != video.imagined[3:, 0]).any()
        actions = np.load(folder / "actions.npy")
        np.testing.assert_array_equal(actions, store.action[at : at + len(other)])
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        assert (manifest["fps"], manifest["camera_id"]) == (store.schema.fps, "top")
        episode = store.episode_index[window.episode]
        assert manifest["context_id"] == f"episode {episode}, frame {window.frame}"
    run(store, worldproof=True, out=str(tmp_path), windows=2)
    assert len(list(root.iterdir())) == 2


def test_without_the_settings_nothing_is_written(store, tmp_path):
    run(store, out=str(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("row", [0, -1])
def test_curves_stand_at_their_frames(store, row):
    """A reward one frame off would look like a world that lags. The last window runs to its episode's end."""
    _, loop, videos = run(store, num_videos=4)
    window, video = loop.windows[row], videos[row]
    row, k, n = loop.windows.index(window), 3, len(video.true) - 3
    plots = window_plots(loop, row, load_batch(store, [window], k, "cpu"), k + n, store.schema)
    first = store.starts[window.episode] + window.frame - (k - 1)

    x = plots["state"]["x"].values
    np.testing.assert_array_equal(x[:, 0], store.state[first : first + k + n, 0])
    assert np.isnan(x[: k - 1, 1]).all()
    assert x[k - 1, 1] == x[k - 1, 0]  # the imagined line leaves the recorded one where imagining begins
    np.testing.assert_array_equal(x[k:, 1], loop.state[row, :n, 0])

    outcome, action = plots["outcome"], plots["action"]["action"]
    reward, success = outcome["reward"], outcome["success"]
    known = window.steps + k - 1  # actions: one fewer than frames, or as many at an episode's end
    assert known in (k + n - 1, k + n)
    for plot, recorded in ((action, store.action[:, 0]), (reward, store.reward), (success, store.success)):
        assert len(plot.values) == k + n
        np.testing.assert_array_equal(plot.values[:known, 0], recorded[first : first + known])
        assert np.isnan(plot.values[known:, 0]).all()
    np.testing.assert_array_equal(reward.values[k - 1 : known, 1], loop.reward[row, : known - k + 1])
    assert np.isnan(reward.values[: k - 1, 1]).all()
    error = outcome["error of the state"].values
    np.testing.assert_array_equal(error[k:, 0], loop.uncertainty[row, :n])
    assert np.isnan(error[:k]).all()


def test_rerun_gets_the_windows_that_are_shown(store, tmp_path):
    pytest.importorskip("rerun", reason="rerun is an extra: pip install '.[rerun]'")
    from tests.scd_world.reporting.test_rerun_file import read

    config, loop, videos = run(store, out=str(tmp_path), num_videos=2)
    write_recordings(store, store.schema, config, loop, videos)
    assert {path.name for path in tmp_path.iterdir()} == {"window_0.rrd", "window_1.rrd"}
    for i, video in enumerate(videos):
        found = read(tmp_path / f"window_{i}.rrd")
        for name in ("recorded", "imagined"):
            pictures = np.stack([row[2] for row in found[f"/camera/top/{name}"]])
            np.testing.assert_array_equal(
                pictures, (video.true if name == "recorded" else video.imagined)[:, 0]
            )
        times = [row[1] for row in found["/plot/state/x"]]
        np.testing.assert_allclose(times, np.arange(len(video.true)) / store.schema.fps)
