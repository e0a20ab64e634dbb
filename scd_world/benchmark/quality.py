"""Quality beside speed: what scd-evaluate measured of worlds, and how fast they step as evaluated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scd_world.benchmark.cost import count_cost, count_decoding
from scd_world.benchmark.timing import dummy_state, interleave_steps
from scd_world.reporting.tables import number, table
from scd_world.world.world import World

HORIZONS = (1, 4, 16, 64)


def quality(evaluations: Sequence[str], device: torch.device, seconds: float) -> list[dict[str, Any]]:
    """Gives one row per evaluation: its world's PSNR, and the latency with as many denoising steps.

    evaluations: folders that scd-evaluate wrote, or their report.json. seconds: of timing, all together.
    """
    reports = {name: read(name) for name in evaluations}
    worlds = {n: World.load(r["settings"]["world"], device) for n, r in reports.items()}
    models = {name: world.model for name, world in worlds.items()}
    steps = {name: report["world"]["num_steps"] for name, report in reports.items()}
    states = {name: dummy_state(model, 1, full=True) for name, model in models.items()}
    codecs = {name: world.codec for name, world in worlds.items()}
    rounds = list(interleave_steps(models, states, steps, codecs, seconds))
    rows = []
    for name, report in reports.items():
        clock, processor, _ = np.median([r[name] for r in rounds], axis=0)
        flops = count_cost(models[name], 1, steps[name]).flops + count_decoding(codecs[name], 1)
        psnr = report["curves"]["psnr_imagined"]["mean"]
        rows.append(
            {
                "evaluation": name,
                "model": models[name].config.architecture,
                "num_steps": steps[name],
                "p50_ms": clock * 1e3,
                "ms": (processor if device.type == "cpu" else clock) * 1e3,
                "gflop_per_frame": flops / 1e9,
                "psnr": {str(h): psnr[h - 1] for h in HORIZONS if h <= len(psnr)},
            }
        )
    return rows


def read(evaluation: str) -> dict[str, Any]:
    """Reads an evaluation's report; FileNotFoundError where there is none."""
    path = Path(evaluation)
    path = path / "report.json" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"no evaluation at {path}: name a folder that scd-evaluate wrote (out=…)")
    return json.loads(path.read_text(encoding="utf-8"))


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Tabulates the rows of `quality`."""
    head = ["evaluation", "model", "steps", "p50, ms", "ms plotted", "GFLOP/frame"]
    head += [f"PSNR, step {h}" for h in HORIZONS]
    lines = [
        [
            r["evaluation"],
            r["model"],
            str(r["num_steps"]),
            f"{r['p50_ms']:.1f}",
            f"{r['ms']:.1f}",
            f"{r['gflop_per_frame']:.2f}",
            *(number(r["psnr"].get(str(h)), 1) for h in HORIZONS),
        ]
        for r in rows
    ]
    return table(head, lines)
