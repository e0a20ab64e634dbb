"""What distillation does to a world whose next frame is a coin toss (docs/distill.md): a minute of CPU.

A square jumps to the left or to the right half, whatever was before. One denoising step shows both halves
pale, fifty show one of them; after distillation one step should do as fifty did.

    python recipes/distill/coin_world.py runs/coin
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from scd_datasets.config import DataConfig
from scd_datasets.store.arrays import EpisodeArrays
from scd_datasets.store.writer import write_store
from scd_world.distill.config import DistillConfig
from scd_world.distill.distill import distill
from scd_world.model.config import ModelConfig
from scd_world.optim.config import OptimizerConfig
from scd_world.prior.config import PriorTrainConfig
from scd_world.robot_data.schema import DataSchema
from scd_world.training.config import TrainConfig
from scd_world.training.trainer import train

SCHEMA = DataSchema(
    cameras=("top",),
    height=16,
    width=16,
    agent_pos=(),
    environment_state=(),
    action=("nothing",),
    action_low=(-1.0,),
    action_high=(1.0,),
    fps=10,
    tasks=("watch",),
    reward=False,
    success=False,
    horizon=24,
)
MODEL = ModelConfig(
    width=32,
    heads=2,
    encoder_layers=1,
    decoder_layers=2,
    patch=8,
    window=2,
    head="patch",
    copy_last=False,
    noise_samples=4,
    change_weight=0.0,
    foreground_weight=0.0,
    frame_blend=0.0,
)


def episode(index: int, length: int = 24) -> EpisodeArrays:
    rng = np.random.default_rng(index)
    pixels = np.full((length, 1, 16, 16, 3), 200, np.uint8)
    for i, right in enumerate(rng.integers(0, 2, length)):
        pixels[i, 0, 5:11, 1 + 8 * right : 7 + 8 * right] = (30, 60, 90)
    nothing = np.zeros(length, np.float32)
    action = rng.uniform(-1, 1, (length, 1)).astype(np.float32)
    return EpisodeArrays(pixels, np.zeros((length, 0), np.float32), action, nothing, nothing > 0, index)


def main(out: Path) -> None:
    data = DataConfig(kind="zarr", root=str(out / "coin.zarr"), holdout=0.25)
    if not (out / "coin.zarr").is_dir():
        write_store(out / "coin.zarr", SCHEMA, map(episode, range(32)))
    small: dict[str, Any] = {
        "data": data,
        "batch_size": 16,
        "sequence_length": 4,
        "device": "cpu",
        "precision": "fp32",
    }
    quiet: dict[str, Any] = {
        "eval_every": 10_000,
        "eval_windows": 4,
        "checkpoint_every": 200,
        "num_start_states": 8,
    }
    optimizer, prior = OptimizerConfig(lr=2e-3, ema_decay=0.99), PriorTrainConfig(layers=0)
    config = TrainConfig(
        out=str(out / "teacher"), model=MODEL, prior=prior, optimizer=optimizer, steps=600, **small, **quiet
    )
    teacher = train(config)
    others: dict[str, str] = {}
    for method in ("consistency", "meanflow"):
        world = distill(
            DistillConfig(
                world=str(teacher),
                out=str(out / method),
                method=method,
                optimizer=OptimizerConfig(lr=1e-3, decoder_lr_ratio=1.0, ema_decay=0.99),
                steps=400,
                report_windows=32,
                report_horizon=4,
                compare_worlds=dict(others),
                **small,
                **quiet,
            )
        )
        others[method] = str(world)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
