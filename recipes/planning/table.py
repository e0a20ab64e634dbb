"""The table and the picture of what pusht.py played.

    python recipes/planning/table.py runs/planning docs/act_pusht.png

Success and its gain over `base` on the same seeds, with 95 % intervals: Wilson's for a rate, a bootstrap over
seeds for a gain and for the mean of the highest reward of an episode (covered share / .95, at most 1).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from scd_world.ranking.statistics import wilson
from scd_world.reporting.plotting import COLORS, new_figure
from scd_world.reporting.tables import table

DRAWS = 10_000


def read(folder: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Reads arm → seed → episode."""
    arms = {}
    for file in sorted(folder.glob("*.jsonl")):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        arms[file.stem] = {line["seed"]: line for line in lines}
    return arms


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Gives mean and 95 % interval of a mean, by resampling seeds."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(DRAWS, len(values)))].mean(1)
    return float(values.mean()), *np.quantile(means, [0.025, 0.975]).tolist()


def gain(arm: dict[int, Any], base: dict[int, Any], key: str) -> tuple[float, float, float]:
    """Gives the gain over the base policy on the seeds that both played."""
    both = sorted(arm.keys() & base.keys())
    return interval(np.array([float(arm[seed][key]) - float(base[seed][key]) for seed in both]))


def cells(arm: dict[int, Any], base: dict[int, Any]) -> list[str]:
    episodes = list(arm.values())
    success = sum(e["success"] for e in episodes)
    low, high = wilson(success, len(episodes))
    better, gain_low, gain_high = gain(arm, base, "success")
    reward, reward_low, reward_high = interval(np.array([e["reward"] for e in episodes]))
    timed = [1e3 * e["plan_seconds"] for e in episodes if "plan_seconds" in e]
    steps = [e["steps"] for e in episodes if e["success"]]
    return [
        str(len(episodes)),
        f"{success / len(episodes):.2f} [{low:.2f}, {high:.2f}]",
        "–" if arm is base else f"{better:+.2f} [{gain_low:+.2f}, {gain_high:+.2f}]",
        f"{reward:.2f} [{reward_low:.2f}, {reward_high:.2f}]",
        f"{np.mean(steps):.0f}" if steps else "–",
        f"{np.mean(timed):.0f}" if timed else "–",
    ]


def report(folder: Path, figure: Path | None) -> None:
    """Prints the table; writes the picture."""
    arms = read(folder)
    head = ["", "episodes", "success", "gain", "highest reward", "steps to success", "ms per decision"]
    order = sorted(arms, key=lambda name: np.mean([e["success"] for e in arms[name].values()]))
    print(table(head, [[name, *cells(arms[name], arms["base"])] for name in order]))
    if {"best of 50", "simulator"} <= arms.keys():
        print(share_of_bound(arms))
    if figure is not None:
        plot(arms, order, figure)


def share_of_bound(arms: dict[str, dict[int, dict[str, Any]]]) -> str:
    """Says how much of what planning in the simulator gains, planning in the world gains; on common seeds."""
    names = ("base", "best of 50", "simulator")
    both = sorted(set.intersection(*(set(arms[name]) for name in names)))
    base, world, bound = (np.array([float(arms[name][seed]["success"]) for seed in both]) for name in names)
    rows = np.random.default_rng(0).integers(len(both), size=(DRAWS, len(both)))
    shares = (world[rows].mean(1) - base[rows].mean(1)) / (bound[rows].mean(1) - base[rows].mean(1))
    low, high = np.quantile(shares, [0.025, 0.975])
    share = (world.mean() - base.mean()) / (bound.mean() - base.mean())
    return (
        f"on the same {len(both)} seeds: base {base.mean():.2f}, best of 50 {world.mean():.2f}, simulator "
        f"{bound.mean():.2f}: the world gains {share:.0%} [{low:.0%}, {high:.0%}] of what the simulator gains"
    )


def plot(arms: dict[str, dict[int, dict[str, Any]]], order: list[str], path: Path) -> None:
    """Shows each arm's success with its interval."""
    with new_figure(path, 6.4, 0.5 + 0.32 * len(order)) as figure:
        ax = figure.subplots()
        for y, name in enumerate(order):
            episodes = arms[name].values()
            count = sum(e["success"] for e in episodes)
            low, high = wilson(count, len(episodes))
            color = COLORS[0] if name in ("base", "simulator") else COLORS[1]
            ax.plot([low, high], [y, y], color=color, lw=2)
            ax.plot(count / len(episodes), y, "o", color=color)
        ax.set_yticks(range(len(order)), order)
        ax.set_xlim(0, 1)
        ax.set_xlabel("success in the simulator, with 95 % interval")


if __name__ == "__main__":
    report(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
