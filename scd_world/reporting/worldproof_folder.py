"""Predicted futures in the folder format of worldproof, a report on world models that knows none of them.

worldproof 0.1.0 (Apache-2.0) reads a folder per start and camera: `manifest.json`, `actions.npy`, and PNGs in
`context/`, `ground_truth/` and `predictions/sample_00/ …`. Nothing of it is needed to write that.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scd_world.reporting.video import write_png

FORMAT = "0.1-provisional"  # worldproof refuses any other


@dataclass(frozen=True)
class Prediction:
    """One camera's frames of one start, uint8 (T, H, W, 3): k given, then n predicted by each of R draws."""

    context: np.ndarray  # k frames
    truth: np.ndarray  # n frames
    draws: Sequence[np.ndarray]  # R times n frames
    actions: np.ndarray  # (n, A): the i-th leads to the i-th predicted frame
    fps: float
    model: str
    camera: str
    start: str  # what the same start's other cameras share
    seed: int

    def __post_init__(self) -> None:
        shape = self.truth.shape
        if not len(self.truth) or not self.draws or any(draw.shape != shape for draw in self.draws):
            raise ValueError(
                f"{self.start}: {len(self.draws)} draws of {[d.shape for d in self.draws]} beside a truth of "
                f"{shape}; expected one draw or more, each as long as the truth, of one frame or more"
            )
        if len(self.actions) != len(self.truth):
            raise ValueError(
                f"{self.start}: {len(self.actions)} actions for {len(self.truth)} predicted frames"
            )


def write_prediction(folder: Path, prediction: Prediction) -> None:
    """Writes a folder that does not exist yet."""
    folder.mkdir(parents=True)
    np.save(folder / "actions.npy", prediction.actions)
    write_frames(folder / "context", prediction.context)
    write_frames(folder / "ground_truth", prediction.truth)
    for i, draw in enumerate(prediction.draws):
        write_frames(folder / "predictions" / f"sample_{i:02d}", draw)
    steps, height, width, channels = prediction.truth.shape
    manifest = {
        "format_version": FORMAT,
        "modality": "pixels",
        "storage": "png_sequence",
        "fps": prediction.fps,
        "resolution": [height, width],
        "channels": channels,
        "model_id": prediction.model,
        "seed": prediction.seed,
        "camera_id": prediction.camera,
        "inference_latency_s": None,
        "context_id": prediction.start,
        "is_failure": None,
        "horizon": steps,
        "n_samples": len(prediction.draws),
        "has_ground_truth": True,
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")


def write_frames(folder: Path, frames: np.ndarray) -> None:
    """Writes frames, uint8 (T, H, W, 3), as PNGs that are read in order."""
    folder.mkdir(parents=True)
    for i, frame in enumerate(frames):
        write_png(folder / f"frame_{i:05d}.png", frame)


def clear(root: Path) -> None:
    """Removes the predictions that an earlier run left in its folder: worldproof reads all that lie there."""
    for manifest in root.glob("window_*/manifest.json"):
        shutil.rmtree(manifest.parent)
