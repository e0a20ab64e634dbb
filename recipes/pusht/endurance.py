"""Does a world hold for 6,000 steps in a row? Block, state, memory and speed over one long PushT episode.

    python recipes/pusht/endurance.py envs/scd_envs/worlds/pusht docs/endurance.png

A policy acts on without a reset, far past any recording. Every 50 steps the imagined frame is compared with
the simulator's of the same state: how large the block is and of what color, how far the two are apart.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import gymnasium
import numpy as np
import psutil
import torch
from tqdm import tqdm

import scd_envs  # noqa: F401 (registers the ids)
import scd_policies
from scd_envs import simulators
from scd_world.reporting.plotting import COLORS, new_figure

GRAY = np.array([119, 136, 153])  # the block; the agent is blue, the goal green
NEAR = 40  # in each color
VISIBLE = 100  # pixels of block; with fewer it was pushed out of the frame: nothing to compare


def block_of(image: np.ndarray) -> tuple[int, np.ndarray]:
    """Counts the pixels of the block's color, and averages their color."""
    found = (np.abs(image.astype(int) - GRAY) < NEAR).all(-1)
    return int(found.sum()), image[found].mean(0) if found.any() else np.full(3, np.nan)


def play(world: str, name: str, steps: int) -> dict[str, list[float]]:
    env = gymnasium.make("scd_world/World-v0", world=world, success_threshold=1.0, horizon=steps + 1)
    sim = simulators.make("pusht")
    policy = scd_policies.make(name, env.action_space)
    obs, _ = env.reset(seed=0)
    policy.reset([0])
    process, log = psutil.Process(), {}
    began = time.perf_counter()
    for step in tqdm(range(1, steps + 1), desc=name, mininterval=10):
        action = policy.act({key: value[None] for key, value in obs.items()})[0]
        obs, *_, info = env.step(action)
        if step % 50:
            continue
        state = {key: obs[key] for key in ("agent_pos", "environment_state")}
        image, true = obs["pixels"], sim.reset(options=state)[0]["pixels"]
        (area, color), (true_area, true_color) = block_of(image), block_of(true)
        mse = np.square((image.astype(float) - true) / 255).mean()
        values = {
            "step": step,
            "finite": float(all(np.isfinite(values).all() for values in state.values())),
            "area": area / true_area if true_area >= VISIBLE else np.nan,
            "color": float(np.abs(color - true_color).max() / 255) if true_area >= VISIBLE else np.nan,
            "psnr": float(-10 * np.log10(max(mse, 1e-7))),
            "memory": process.memory_info().rss / 2**20,
            "ms": 1000 * (time.perf_counter() - began) / step,
            "uncertainty": info["uncertainty"],
        }
        for key, value in values.items():
            log.setdefault(key, []).append(value)
    return log


def print_thirds(name: str, log: dict[str, list[float]]) -> None:
    third = len(log["step"]) // 3
    for part, rows in {"first third": slice(0, third), "last third": slice(-third, None)}.items():
        means = (np.nanmean(log[key][rows]) for key in ("area", "color", "psnr", "memory"))
        area, color, psnr, memory = means
        print(
            f"{name}, {part}: block area {area:.3f} of the true one, color off by {color:.3f}, "
            f"{psnr:.1f} dB from the simulator's frame of the same state, {memory:.0f} MiB"
        )
    gone = np.isnan(log["area"]).mean()
    print(
        f"{name}: state finite at all steps: {all(log['finite'])}; block out of the frame in {gone:.0%} "
        f"of the samples; {log['ms'][-1]:.1f} ms per step"
    )


def plot(logs: dict[str, dict[str, list[float]]], path: Path) -> None:
    shown = {"area": "block area / true", "psnr": "dB from simulator", "memory": "memory, MiB"}
    with new_figure(path, 8, 6) as figure:
        for ax, (key, label) in zip(figure.subplots(3, 1, sharex=True), shown.items(), strict=True):
            for (name, log), color in zip(logs.items(), COLORS, strict=False):
                ax.plot(log["step"], log[key], color=color, label=name, linewidth=1)
            ax.set(ylabel=label)
            ax.label_outer()
        figure.axes[0].legend()
        figure.axes[-1].set(xlabel="imagined steps without a reset")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("world")
    parser.add_argument("figure")
    parser.add_argument("--steps", type=int, default=6000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    logs = {name: play(args.world, name, args.steps) for name in ("scripted_pusht", "random_walk")}
    for name, log in logs.items():
        print_thirds(name, log)
    plot(logs, Path(args.figure))
    print(json.dumps({name: {key: values[-1] for key, values in log.items()} for name, log in logs.items()}))
