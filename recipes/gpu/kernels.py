"""Kernels, launches and share of the peak of a step through Gymnasium, or of an update (profile.sh calls it).

On a CPU, operations stand for kernels.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from scd_envs.vector_env import WorldVectorEnv
from scd_world.benchmark.benchmark import plain_schema
from scd_world.benchmark.config import BenchConfig
from scd_world.benchmark.cost import count_cost, count_decoding
from scd_world.benchmark.stepping import build_models
from scd_world.benchmark.timing import matmul_speed, synchronize
from scd_world.benchmark.training import blank_windows, count_update
from scd_world.model.config import MODELS
from scd_world.prior.config import PriorConfig
from scd_world.reporting.tables import table
from scd_world.robot_data.normalizer import Normalizer
from scd_world.training.config import TrainConfig
from scd_world.training.learner import Learner
from scd_world.utils.devices import machine_info
from scd_world.world.world import World

SHOWN = 20  # kernels
WARM_UP = 3  # turns; on a GPU the first one records the step
PATCH, HEIGHT, WIDTH, SEQUENCE_LENGTH = 8, 96, 128, 8


Turn = Callable[[], object]


def step(options: argparse.Namespace, device: torch.device) -> tuple[Turn, int, torch.dtype]:
    """Gives a step of all rows, the operations that it takes, and in what matrices are multiplied."""
    world = World.load(options.world, device)
    envs = WorldVectorEnv(
        world,
        options.rows,
        observations=options.observations,
        precision=options.precision,
        success_threshold=1.0,
        horizon=10**9,
    )
    envs.reset(seed=0)
    space: Any = envs.single_action_space
    action = np.tile((space.low + space.high) / 2, (options.rows, 1))
    flops = count_cost(world.model, options.rows, world.config.num_steps).flops
    flops += count_decoding(world.codec, options.rows)
    return lambda: envs.step(action), flops, torch.bfloat16 if envs.episodes.bf16 else torch.float32


def update(
    options: argparse.Namespace, device: torch.device
) -> tuple[Callable[[], object], int, torch.dtype]:
    """Gives an update as `scd-bench training=true` has it, likewise."""
    config = replace(MODELS[options.model], patch=PATCH)
    schema = plain_schema(BenchConfig(height=HEIGHT, width=WIDTH))
    (model,) = build_models(config, PriorConfig(), (), schema, device).values()
    settings = TrainConfig(
        out="", batch_size=options.batch, sequence_length=SEQUENCE_LENGTH, device=device.type
    )
    flops = count_update(model, options.batch, SEQUENCE_LENGTH)
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no")
    learner = Learner(model.train().requires_grad_(True), Normalizer.neutral(schema), settings, accelerator)
    windows = blank_windows(schema, options.batch, SEQUENCE_LENGTH)
    dtype = torch.bfloat16 if learner.bf16 else torch.float32
    return lambda: learner.update(windows, 1, rate=1e-4), flops, dtype


def clock(turn: Turn, device: torch.device, turns: int) -> float:
    """Gives the median seconds of a turn."""
    taken = []
    for _ in range(turns):
        synchronize(device)
        began = time.perf_counter()
        turn()
        synchronize(device)
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))


def watch(turn: Turn, device: torch.device, turns: int) -> profile:
    on_gpu = [ProfilerActivity.CUDA] if device.type == "cuda" else []
    with profile(activities=[ProfilerActivity.CPU, *on_gpu], acc_events=True) as watched:
        for _ in range(turns):
            turn()
        synchronize(device)
    return watched


def kernels(watched: profile, device: torch.device, turns: int) -> list[tuple[str, float, float]]:
    """Gives (name, calls per turn, ms per turn), the longest first."""
    found = []
    for event in watched.key_averages():
        if device.type == "cuda" and event.device_type == DeviceType.CUDA and not event.is_user_annotation:
            found.append((event.key, event.count / turns, event.self_device_time_total / turns / 1e3))
        elif device.type == "cpu" and event.self_cpu_time_total:
            found.append((event.key, event.count / turns, event.self_cpu_time_total / turns / 1e3))
    return sorted(found, key=lambda row: -row[2])


def launches(watched: profile, turns: int) -> dict[str, float]:
    """Gives how often the host gave the GPU something to do, per turn, by the call that did it."""
    names = ("Launch", "Memcpy", "Memset", "Synchronize")
    calls = {e.key: e.count / turns for e in watched.key_averages() if e.key.startswith(("cuda", "cuLaunch"))}
    return {key: count for key, count in calls.items() if any(name in key for name in names)}


def report(options: argparse.Namespace) -> str:
    """Profiles one kind of turn and writes what it found as a page."""
    device, turns = torch.device(options.device), options.turns
    turn, flops, dtype = {"step": step, "update": update}[options.what](options, device)
    for _ in range(WARM_UP):
        turn()
    seconds, peak = clock(turn, device, turns), matmul_speed(device, dtype)
    watched = watch(turn, device, turns)
    watched.export_chrome_trace(f"{options.out}.trace.json.gz")
    found = kernels(watched, device, turns)
    total, count = sum(ms for *_, ms in found), sum(n for _, n, _ in found)
    calls = ", ".join(f"{n:.0f} {name}" for name, n in launches(watched, turns).items()) or "none"
    lines = [[name[:80], f"{n:.0f}", f"{ms:.3f}", f"{ms / total:.1%}"] for name, n, ms in found[:SHOWN]]
    of = f" of {options.rows} rows, {options.observations}" if options.what == "step" else ""
    return f"""# {options.what}{of}

{machine_info(device)}

{seconds * 1e3:.2f} ms by the clock; {total:.2f} ms in {count:.0f} kernels. Calls: {calls}.
{flops / 1e9:.2f} GFLOP: {flops / seconds / 1e12:.3f} TFLOP/s, {flops / seconds / peak:.1%} of the
{peak / 1e12:.3f} that a large matrix product in {dtype} reaches here.

{table(["kernel", "calls", "ms", "share"], lines)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("step", "update"))
    parser.add_argument("--world", default="envs/scd_envs/worlds/pusht")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--observations", default="torch", choices=("numpy", "torch"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "auto"))
    parser.add_argument("--model", default="base", choices=tuple(MODELS))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True, help="without suffix: .md and .trace.json.gz")
    options = parser.parse_args()
    text = report(options)
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
