"""One batched environment against single ones in processes of their own: LeRobot's usual way, and ours.

LeRobot puts n single environments into gymnasium's AsyncVectorEnv: forkserver workers, each with a world of
its own and torch's default number of threads. All are measured in turn, round after round, because machines
are shared: the ratios are medians over the rounds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import psutil
import torch
from gymnasium.vector import AsyncVectorEnv, VectorEnv
from tqdm import tqdm

import scd_envs  # noqa: F401 (registers the ids)
from scd_world.reporting.tables import table

ROUNDS = 5
WARM_UP = 8  # steps that fill the window
ENDLESS = {"success_threshold": 1.0, "horizon": 1_000_000_000}
BATCHED, ONE, USUAL, TUNED = "batched", "single", "async", "async, 1 thread each"


class ThreadCountWrapper(gymnasium.Wrapper):
    """A worker's environment whose number of threads can be read and set from outside."""

    def count_threads(self) -> int:
        return torch.get_num_threads()

    def set_threads(self, count: int) -> None:
        torch.set_num_threads(count)


def worker(**settings: Any) -> gymnasium.Env:
    """Makes the single environment of a worker."""
    return ThreadCountWrapper(gymnasium.make("scd_envs:scd_world/World-v0", **settings))


def compare_async(
    world: str, num_envs: int, seconds: float, device: str, precision: str = "fp32"
) -> dict[str, Any]:
    """Measures milliseconds per environment step, by the clock and of all processors, of each way to step.

    seconds: of each way, over all rounds.
    """
    with ExitStack() as stack:
        settings: dict[str, Any] = {"world": world, "device": device, "precision": precision, **ENDLESS}
        make = partial(gymnasium.make_vec, "scd_world/World-v0", **settings)
        singles = [partial(worker, **settings)] * num_envs
        alone, batched = (stack.enter_context(closing(make(num_envs=n))) for n in (1, num_envs))
        workers = stack.enter_context(closing(AsyncVectorEnv(singles, context="forkserver")))
        threads = workers.call("count_threads")[0]  # as many as torch takes by itself
        entries = {
            BATCHED: (batched, None),
            ONE: (alone, None),
            TUNED: (workers, 1),
            USUAL: (workers, threads),
        }
        for env in (batched, alone, workers):
            env.reset(seed=0)
            steps(env, 0.0, WARM_UP)
        rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in entries}
        for _ in tqdm(range(ROUNDS), desc="async", unit="round"):
            for name, (env, count) in entries.items():
                if count is not None:
                    workers.call("set_threads", count)
                rounds[name].append(steps(env, seconds / ROUNDS))
    return {"rows": num_envs, "threads": threads, "precision": precision, **compare_rounds(rounds)}


def steps(env: VectorEnv, seconds: float, at_least: int = 1) -> tuple[float, float]:
    """Steps for so long; gives milliseconds per environment step, by the clock and of all processors."""
    space: Any = env.single_action_space
    action = np.tile((space.low + space.high) / 2, (env.num_envs, 1))
    began_cpu, began, taken = cpu_seconds(), time.perf_counter(), 0
    while taken < at_least * env.num_envs or time.perf_counter() - began < seconds:
        env.step(action)
        taken += env.num_envs
    return (time.perf_counter() - began) / taken * 1e3, (cpu_seconds() - began_cpu) / taken * 1e3


def cpu_seconds() -> float:
    """Adds up the seconds that this process and its workers have spent on processors."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(t.user + t.system for t in times)


def compare_rounds(rounds: Mapping[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """Gives each way's medians, and how many times as fast as it the batch is in the same round."""
    ours = np.array(rounds[BATCHED])
    ways = {}
    for name, values in rounds.items():
        theirs = np.array(values)
        clock, processors = np.median(theirs, axis=0)
        faster, cheaper = np.median(theirs / ours, axis=0)
        ways[name] = {
            "steps_per_s": 1e3 / clock,
            "cpu_ms": processors,
            "batch_speedup": faster,
            "batch_cpu_ratio": cheaper,
        }
    return {name: {key: float(value) for key, value in row.items()} for name, row in ways.items()}


def markdown(report: Mapping[str, Any]) -> str:
    """Tabulates the ways to step."""
    rows, threads = report["rows"], report["threads"]
    names = {
        BATCHED: f"{rows} rows in one batch (`make_vec`)",
        ONE: "a single environment",
        USUAL: f"AsyncVectorEnv of {rows} single ones, {threads} threads each, as LeRobot makes it",
        TUNED: f"AsyncVectorEnv of {rows} single ones, 1 thread each",
    }
    head = ["environment", "steps/s", "CPU ms per step", "the batch is faster", "needs less CPU"]
    lines = [
        [
            title,
            f"{report[name]['steps_per_s']:.1f}",
            f"{report[name]['cpu_ms']:.1f}",
            f"{report[name]['batch_speedup']:.2f} ×",
            f"{report[name]['batch_cpu_ratio']:.2f} ×",
        ]
        for name, title in names.items()
    ]
    note = f"Steps of all rows together, {report['precision']}; measured in turn, medians of {ROUNDS} rounds."
    return f"{table(head, lines)}\n\n{note}"
