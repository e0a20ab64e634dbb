"""worldproof's folders: the layout that it documents, frames bit by bit, its own reader and report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scd_world.reporting.worldproof_folder import Prediction, clear, write_prediction


@pytest.fixture
def prediction() -> Prediction:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (4, 6, 8, 12, 3), np.uint8)
    return Prediction(
        context=frames[0, :3],
        truth=frames[1],
        draws=[frames[2], frames[3]],
        actions=rng.normal(size=(6, 2)).astype(np.float32),
        fps=10,
        model="runs/mine/world",
        camera="Kamera/öben",
        start="episode 2, frame 7",
        seed=3,
    )


def frames_in(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("frame_*.png"))])


def test_the_layout_is_the_documented_one(prediction, tmp_path):
    folder = tmp_path / "window_0000_0"
    write_prediction(folder, prediction)
    np.testing.assert_array_equal(frames_in(folder / "context"), prediction.context)
    np.testing.assert_array_equal(frames_in(folder / "ground_truth"), prediction.truth)
    for i, draw in enumerate(prediction.draws):
        np.testing.assert_array_equal(frames_in(folder / "predictions" / f"sample_{i:02d}"), draw)
    np.testing.assert_array_equal(np.load(folder / "actions.npy"), prediction.actions)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    expected = {"format_version": "0.1-provisional", "modality": "pixels", "storage": "png_sequence"}
    expected |= {"resolution": [8, 12], "channels": 3, "horizon": 6, "n_samples": 2, "fps": 10}
    expected |= {"has_ground_truth": True, "camera_id": "Kamera/öben", "seed": 3}
    assert {key: manifest[key] for key in expected} == expected


def test_worldproof_reads_it(prediction, tmp_path):
    worldproof = pytest.importorskip(
        "worldproof", reason="pip install worldproof: its reader is tried here alone"
    )
    write_prediction(tmp_path / "window_0000_0", prediction)
    (rollout,) = worldproof.iter_rollouts(tmp_path)
    np.testing.assert_array_equal(rollout.context, prediction.context)
    np.testing.assert_array_equal(rollout.ground_truth, prediction.truth)
    np.testing.assert_array_equal(rollout.predictions, prediction.draws)
    np.testing.assert_array_equal(rollout.actions, prediction.actions)
    assert rollout.metadata.camera_id == "Kamera/öben"
    report, _ = worldproof.evaluate([rollout])
    assert {"psnr", "ssim", "calibration_ece"} <= {metric.name for metric in report.metrics}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"draws": []}, "0 draws"),
        ({"draws": [np.zeros((5, 8, 12, 3), np.uint8)]}, "each as long as the truth"),
        ({"truth": np.zeros((0, 8, 12, 3), np.uint8)}, "of one frame or more"),
        ({"actions": np.zeros((7, 2), np.float32)}, "7 actions for 6 predicted frames"),
    ],
)
def test_what_does_not_belong_together_is_refused(prediction, changes, said):
    with pytest.raises(ValueError, match=said):
        replace(prediction, **changes)


def test_clearing_leaves_what_it_did_not_write(prediction, tmp_path):
    write_prediction(tmp_path / "window_0000_0", prediction)
    (tmp_path / "window_of_mine").mkdir()
    (tmp_path / "report.html").touch()
    clear(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"window_of_mine", "report.html"}
