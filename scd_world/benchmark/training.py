"""How fast models learn: tokens per second, the share of the machine's peak, waiting for data.

Models make their updates in turn, as they step in `stepping.py`. A token is a patch of a frame;
both are counted where they are predicted.

B batch, T steps.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from scd_datasets.store.loader import WindowLoader, prefetch
from scd_datasets.store.store import WindowStore
from scd_world.benchmark.cost import shapes_of
from scd_world.benchmark.timing import Elapsed, Turn, interleave, matmul_speed
from scd_world.model.world_model import WorldModel
from scd_world.reporting.tables import table
from scd_world.robot_data.clip import Clip
from scd_world.robot_data.normalizer import Normalizer
from scd_world.robot_data.schema import DataSchema
from scd_world.training.config import TrainConfig
from scd_world.training.learner import Learner

Windows = Mapping[str, Tensor]


def compare_training(
    models: Mapping[str, WorldModel], store: str | None, batch: int, steps: int, seconds: float
) -> list[dict[str, Any]]:
    """Gives one row per model, of updates of `batch` clips of `steps` steps.

    store: its windows, read as a training reads them; None: zeros, and no waiting. seconds: all together.
    """
    model = next(iter(models.values()))
    device = model.device
    config = TrainConfig(out="", batch_size=batch, sequence_length=steps, device=device.type)
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no")
    stats = Normalizer.neutral(model.schema)
    learners = {
        name: Learner(deepcopy(m).train().requires_grad_(True), stats, config, accelerator)
        for name, m in models.items()
    }
    bf16 = next(iter(learners.values())).bf16
    peak = matmul_speed(device, torch.bfloat16 if bf16 else torch.float32)
    with closing(batches(model.schema, store, batch, steps)) as windows:
        rounds = list(interleave_updates(learners, windows, seconds))
    rows = []
    for name, m in models.items():
        clock, processor, waiting = np.median([r[name] for r in rounds], axis=0)
        flops, tokens = count_update(m, batch, steps), batch * steps * m.core.patches.count
        rows.append(
            {
                "model": name,
                "update_ms": clock * 1e3,
                "cpu_ms": processor * 1e3,
                "tokens_per_s": tokens / clock,
                "frames_per_s": batch * steps / clock,
                "gflop": flops / 1e9,
                "gflop_per_s": flops / clock / 1e9,
                "share_of_peak": flops / clock / peak,
                "waiting": waiting / (waiting + clock) if store else None,
                "batch": batch,
                "sequence_length": steps,
                "precision": "bf16" if bf16 else "fp32",
                "peak_gflop_per_s": peak / 1e9,
                "rounds": len(rounds),
            }
        )
    return rows


def batches(schema: DataSchema, store: str | None, batch: int, steps: int) -> Generator[Windows]:
    """Yields batches of windows for ever: those of a store, or zeros."""
    if store is None:
        while True:
            yield blank_windows(schema, batch, steps)
    opened = WindowStore.open(store)
    loader = WindowLoader(opened, np.arange(len(opened.lengths)), batch, steps, seed=0)
    with closing(prefetch(loader, 0)) as windows:
        yield from windows


def blank_windows(schema: DataSchema, B: int, T: int) -> dict[str, Tensor]:
    """Makes B windows of zeros, T steps each, as a loader gives them."""
    return {
        "pixels": torch.zeros(B, T + 1, len(schema.cameras), schema.height, schema.width, 3).byte(),
        "state": torch.zeros(B, T + 1, len(schema.state)),
        "prev": torch.zeros(B, len(schema.state) + len(schema.action)),
        "action": torch.zeros(B, T, len(schema.action)),
        "reward": torch.zeros(B, T),
        "success": torch.zeros(B, T, dtype=torch.bool),
        "valid": torch.ones(B, T, dtype=torch.bool),
        "dropped": torch.zeros(B, T, dtype=torch.bool),
        "task": torch.zeros(B, dtype=torch.long),
    }


def interleave_updates(
    learners: Mapping[str, Learner], windows: Iterator[Windows], seconds: float
) -> Iterator[dict[str, Elapsed]]:
    """Yields rounds in which each learner makes one update, with the next windows."""

    def turn(learner: Learner) -> Turn:
        def update(round_number: int, batch: Windows) -> None:
            learner.update(batch, round_number + 1, rate=1e-4)

        return Turn(learner.device, update, prepare=lambda: next(windows))

    return interleave({name: turn(learner) for name, learner in learners.items()}, seconds)


def count_update(model: WorldModel, batch: int, steps: int) -> int:
    """Counts the floating-point operations of one update, forward and backward, without computing them."""
    shapes = shapes_of(model).train().requires_grad_(True)
    stats = Normalizer.neutral(model.schema).to("meta")
    windows = {k: v.to("meta") for k, v in blank_windows(model.schema, batch, steps).items()}
    clip = Clip.from_windows(windows, stats)
    noise = shapes.sample_noise(clip, torch.Generator())
    with FlopCounterMode(display=False) as counter:
        shapes.loss(clip, noise)[0].backward()
    return counter.get_total_flops()


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Tabulates the rows of `compare_training`."""
    first = rows[0]
    head = [
        "model",
        "update, ms",
        "CPU, ms",
        "tokens/s",
        "frames/s",
        "GFLOP/update",
        "GFLOP/s",
        "share of peak",
        "waiting",
    ]
    lines = [
        [
            r["model"],
            f"{r['update_ms']:.0f}",
            f"{r['cpu_ms']:.0f}",
            f"{r['tokens_per_s']:,.0f}",
            f"{r['frames_per_s']:,.0f}",
            f"{r['gflop']:.0f}",
            f"{r['gflop_per_s']:.0f}",
            f"{r['share_of_peak']:.0%}",
            "–" if r["waiting"] is None else f"{r['waiting']:.0%}",
        ]
        for r in rows
    ]
    note = (
        f"Updates of {first['batch']} clips of {first['sequence_length']} steps in {first['precision']}, "
        f"in turn; a large matrix product reaches {first['peak_gflop_per_s']:.0f} GFLOP/s here."
    )
    return f"{table(head, lines)}\n\n{note}"
