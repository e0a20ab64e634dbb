"""SCD against its baselines: the same size, the same head, the same window, stepped in turn in one process.

Machines are shared, and their speed drifts. So the models take turns, step by step; a ratio is the median
over rounds of two steps taken one after the other. Beside the clock stands the time that processors spent
(on a CPU): it does not count what other processes took.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from scd_world.benchmark.cost import count_cost, count_decoding, peak_bytes
from scd_world.benchmark.timing import COMPILED, dummy_inputs, dummy_state, interleave_steps, matmul_speed
from scd_world.codec.codec import Codec
from scd_world.model.config import ModelConfig
from scd_world.model.world_model import WorldModel
from scd_world.prior.config import PriorConfig
from scd_world.reporting.tables import table
from scd_world.robot_data.normalizer import Normalizer
from scd_world.robot_data.schema import DataSchema
from scd_world.world.build_model import build_model

DENSE = "causal_dit"  # what ratios refer to, where it is among the models; else the last one


def compare_models(
    config: ModelConfig,
    prior: PriorConfig,
    baselines: Sequence[str],
    codec: Codec,
    device: torch.device,
    contexts: Sequence[int],
    batches: Sequence[int],
    num_steps: Sequence[int],
    seconds: float,
    max_round_seconds: float,
    compiled: bool = False,
) -> list[dict[str, Any]]:
    """Gives one row per model and setting: context, rows, denoising steps. A step ends with the image that
    the codec, the same for all models, makes of the new frame.

    seconds: of each setting, all models together. A setting of which one round would take more than
    `max_round_seconds` is counted but not timed. compiled: measure the model once more with compiled steps.
    """
    rows, speed = [], matmul_speed(device)
    settings = [(c, b, n) for c in contexts for b in batches for n in num_steps]
    models: dict[str, WorldModel] = {}
    for context, batch, n in (bar := tqdm(settings, desc="steps", unit="setting")):
        bar.set_postfix_str(f"context {context}, {batch} rows, {n} steps")
        if not models or next(iter(models.values())).config.window != context:
            models = build_models(
                replace(config, window=context), prior, baselines, codec.model_schema, device
            )
            if compiled:
                models = {config.architecture + COMPILED: models[config.architecture], **models}
        rows += run_setting(models, codec, batch, n, seconds, max_round_seconds, speed)
    return rows


def build_models(
    config: ModelConfig,
    prior: PriorConfig,
    baselines: Sequence[str],
    schema: DataSchema,
    device: torch.device,
) -> dict[str, WorldModel]:
    """Builds the model and its baselines of equal size; untrained weights step as fast as trained ones."""
    names, normalizer = dict.fromkeys([config.architecture, *baselines]), Normalizer.neutral(schema)
    models = {n: build_model(replace(config, architecture=n), prior, schema, normalizer) for n in names}
    return {n: model.to(device).eval().requires_grad_(False) for n, model in models.items()}


def run_setting(
    models: Mapping[str, WorldModel],
    codec: Codec,
    batch: int,
    num_steps: int,
    seconds: float,
    max_round_seconds: float,
    flops_per_s: float,
) -> list[dict[str, Any]]:
    """Counts and times one setting: one row per model."""
    cost = {name: count_cost(model, batch, num_steps) for name, model in models.items()}
    flops = {name: c.flops + count_decoding(codec, batch) for name, c in cost.items()}
    dense = DENSE if DENSE in models else list(models)[-1]
    times: dict[str, np.ndarray] = {}
    peaks: dict[str, int] = {}
    if sum(flops.values()) / flops_per_s < max_round_seconds:
        states = {name: dummy_state(model, batch, full=True) for name, model in models.items()}
        same = dict.fromkeys(models, num_steps), dict.fromkeys(models, codec)
        rounds = list(interleave_steps(models, states, *same, seconds))
        times = {name: np.array([(r[name].clock, r[name].processor) for r in rounds]) for name in models}
        for name, model in models.items():
            s = dummy_state(model, batch, full=True)
            # A step overwrites what the last one left: two of them reach the peak of any number.
            inputs = dummy_inputs(s, len(model.schema.action))
            peaks[name] = peak_bytes(model, s, *inputs, min(num_steps, 2), codec)
    rows = []
    for name, model in models.items():
        row: dict[str, Any] = {
            "model": name,
            "layers": layers(model.config),
            "parameters": sum(p.numel() for p in model.parameters()),
            "context": model.config.window,
            "batch": batch,
            "num_steps": num_steps,
            "gflop_per_frame": flops[name] / batch / 1e9,
            "block_passes": cost[name].block_passes,
            "cache_bytes": cost[name].cache_bytes,
            "flop_ratio": flops[dense] / max(flops[name], 1),
        }
        if times:
            on_cpu = model.device.type == "cpu"
            row |= timing(times[name], times[dense], batch, peaks[name], on_cpu)
        rows.append(row)
    return rows


def timing(own: np.ndarray, dense: np.ndarray, batch: int, peak: int, on_cpu: bool) -> dict[str, float | int]:
    """Summarizes one model's rounds. own, dense: (rounds, 2) seconds by the clock and of processors."""
    p50, p95 = np.quantile(own[:, 0], [0.5, 0.95])
    clock, processor = np.median(dense / own, axis=0)
    row = {
        "p50_ms": float(p50 * 1e3),
        "p95_ms": float(p95 * 1e3),
        "steps_per_s": float(batch / p50),
        "faster": float(clock),
        "peak_bytes": peak,
        "rounds": len(own),
    }
    if not on_cpu:  # there a processor only waits
        return row
    return row | {"cpu_ms": float(np.median(own[:, 1]) * 1e3), "faster_cpu": float(processor)}


def layers(config: ModelConfig) -> str:
    """Writes a model's layers for a table: encoder + decoder, or all."""
    if config.architecture in ("scd", "regression"):
        return f"{config.encoder_layers} + {config.decoder_layers}"
    return "0" if config.architecture == "copy_last" else str(config.encoder_layers + config.decoder_layers)


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Tabulates the rows of `compare_models`."""
    head = ["context", "rows", "steps", "model", "layers", "p50, ms", "p95, ms", "CPU, ms", "frames/s"]
    head += ["GFLOP/frame", "cache, MiB", "peak, MiB", "× faster", "× faster, CPU", "× fewer FLOP"]

    def cell(row: Mapping[str, Any], key: str, digits: int, scale: float = 1.0) -> str:
        return f"{row[key] * scale:.{digits}f}" if key in row else "–"

    lines = [
        [
            str(r["context"]),
            str(r["batch"]),
            str(r["num_steps"]),
            r["model"],
            r["layers"],
            cell(r, "p50_ms", 1),
            cell(r, "p95_ms", 1),
            cell(r, "cpu_ms", 1),
            cell(r, "steps_per_s", 1),
            cell(r, "gflop_per_frame", 2),
            cell(r, "cache_bytes", 1, 2**-20),
            cell(r, "peak_bytes", 0, 2**-20),
            cell(r, "faster", 2),
            cell(r, "faster_cpu", 2),
            cell(r, "flop_ratio", 2),
        ]
        for r in rows
    ]
    names = [r["model"] for r in rows]
    dense = DENSE if DENSE in names else names[-1]
    note = (
        f"× are of `{dense}` against this model, medians over rounds in which all take one step each; CPU is "
        "processor time. A step ends with its image: an autoencoder's decoder is part of it. – was counted, "
        "not timed: one round would take longer than `max_round_seconds`."
    )
    return f"{table(head, lines)}\n\n{note}"
