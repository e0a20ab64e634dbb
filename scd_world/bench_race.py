"""SCD against its rivals: the same size, the same head, the same window, stepped in turn in one process.

Machines are shared, and their clocks wander. So contenders alternate, step by step; a ratio is the median
over rounds of two steps taken one after the other. Beside the clock stands the time that processors spent
(on a CPU): it does not count what other processes took.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from scd_world.base_model import BaseModel
from scd_world.bench_work import count_work, inputs, peak_bytes, start
from scd_world.graph import Stepper
from scd_world.imagined import Imagined
from scd_world.model_config import ModelConfig
from scd_world.models import make_model
from scd_world.report import table
from scd_world.schema import DataSchema
from scd_world.stats import Stats

FEWEST = 3  # rounds
DENSE = "causal_dit"  # what ratios refer to, where it runs along; else the last contender
COMPILED = ", compiled"  # ends the name of a contender whose steps are compiled, on a CPU (graph.py)


def race(
    config: ModelConfig,
    rivals: Sequence[str],
    schema: DataSchema,
    device: torch.device,
    contexts: Sequence[int],
    batches: Sequence[int],
    num_steps: Sequence[int],
    seconds: float,
    longest: float,
    compiled: bool = False,
) -> list[dict[str, Any]]:
    """One row per contender and setting. What one round would need more than `longest` seconds for is counted
    but not timed. compiled: the model runs along once more, its steps compiled."""
    rows, speed = [], matmul_speed(device)
    heats = [(c, b, n) for c in contexts for b in batches for n in num_steps]
    models: dict[str, BaseModel] = {}
    for context, batch, n in (bar := tqdm(heats, desc="race", unit="setting")):
        bar.set_postfix_str(f"context {context}, {batch} rows, {n} steps")
        if not models or next(iter(models.values())).config.window != context:
            models = contenders(replace(config, window=context), rivals, schema, device)
            if compiled:
                models = {config.kind + COMPILED: models[config.kind], **models}
        rows += heat(models, batch, n, seconds, longest, speed)
    return rows


def contenders(
    config: ModelConfig, rivals: Sequence[str], schema: DataSchema, device: torch.device
) -> dict[str, BaseModel]:
    """Untrained weights step as fast as trained ones."""
    configs = [replace(config, kind=kind) for kind in dict.fromkeys([config.kind, *rivals])]
    stats = Stats.neutral(schema)
    return {c.kind: make_model(c, schema, stats).to(device).eval().requires_grad_(False) for c in configs}


def heat(
    models: Mapping[str, BaseModel],
    batch: int,
    num_steps: int,
    seconds: float,
    longest: float,
    flops_per_s: float,
) -> list[dict[str, Any]]:
    work = {name: count_work(model, batch, num_steps) for name, model in models.items()}
    dense = DENSE if DENSE in models else list(models)[-1]
    times: dict[str, np.ndarray] = {}
    peaks: dict[str, int] = {}
    if sum(w.flops for w in work.values()) / flops_per_s < longest:
        standing = {name: start(model, batch, full=True) for name, model in models.items()}
        rounds = list(alternate(models, standing, dict.fromkeys(models, num_steps), seconds))
        times = {name: np.array([r[name] for r in rounds]) for name in models}
        for name, model in models.items():
            s = start(model, batch, full=True)
            # Steps overwrite what the one before left: two of them reach the peak of any number.
            peaks[name] = peak_bytes(model, s, *inputs(s, len(model.schema.action)), min(num_steps, 2))
    rows = []
    for name, model in models.items():
        row: dict[str, Any] = {
            "model": name,
            "layers": layers(model.config),
            "parameters": sum(p.numel() for p in model.parameters()),
            "context": model.config.window,
            "batch": batch,
            "num_steps": num_steps,
            "gflop_per_frame": work[name].flops / batch / 1e9,
            "block_passes": work[name].block_passes,
            "cache_bytes": work[name].cache_bytes,
            "fewer_flops": work[dense].flops / max(work[name].flops, 1),
        }
        if times:
            on_cpu = model.device.type == "cpu"
            row |= timing(times[name], times[dense], batch, peaks[name], on_cpu)
        rows.append(row)
    return rows


def timing(own: np.ndarray, dense: np.ndarray, batch: int, peak: int, on_cpu: bool) -> dict[str, float | int]:
    """own, dense: (rounds, 2) seconds by the clock and of processors."""
    p50, p95 = np.quantile(own[:, 0], [0.5, 0.95])
    clock, processor = np.median(dense / own, axis=0)
    found = {
        "p50_ms": float(p50 * 1e3),
        "p95_ms": float(p95 * 1e3),
        "steps_per_s": float(batch / p50),
        "faster": float(clock),
        "peak_bytes": peak,
        "rounds": len(own),
    }
    if not on_cpu:  # there a processor only waits
        return found
    return found | {"cpu_ms": float(np.median(own[:, 1]) * 1e3), "faster_cpu": float(processor)}


def alternate(
    models: Mapping[str, BaseModel],
    standing: dict[str, Imagined],
    num_steps: Mapping[str, int],
    seconds: float,
) -> Iterator[dict[str, tuple[float, float]]]:
    """Rounds in which each contender takes one step: seconds by the clock, and of our processors."""
    given = {name: inputs(s, len(models[name].schema.action)) for name, s in standing.items()}
    steppers = {name: Stepper(model) for name, model in models.items()}
    began, rounds = time.perf_counter(), -1
    while rounds < FEWEST or time.perf_counter() - began < seconds:
        taken = {}
        for name, model in models.items():
            compiled = name.endswith(COMPILED)
            n = num_steps[name] if rounds >= 0 or compiled or model.device.type == "cuda" else 1
            synchronise(model.device)
            clock, processor = time.perf_counter(), time.process_time()
            standing[name] = steppers[name](standing[name], *given[name], n, compiled)
            synchronise(model.device)
            taken[name] = (time.perf_counter() - clock, time.process_time() - processor)
        if rounds >= 0:  # the first round warms up
            yield taken
        rounds += 1


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_speed(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """FLOP per second of a large matrix product: what a machine has to give."""
    size = 8192 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(6):
        synchronise(device)
        began = time.perf_counter()
        a @ a
        synchronise(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def layers(config: ModelConfig) -> str:
    """As a table has it: encoder + decoder, or all."""
    if config.kind in ("scd", "regression"):
        return f"{config.encoder_layers} + {config.decoder_layers}"
    return "0" if config.kind == "copy_last" else str(config.encoder_layers + config.decoder_layers)


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
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
            cell(r, "fewer_flops", 2),
        ]
        for r in rows
    ]
    names = [r["model"] for r in rows]
    dense = DENSE if DENSE in names else names[-1]
    note = (
        f"× are of `{dense}` against this model, medians over rounds in which all take one step each; CPU is "
        "processor time. – was counted but not timed: one round would take longer than `longest` seconds."
    )
    return f"{table(head, lines)}\n\n{note}"
