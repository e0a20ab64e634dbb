"""The table and the picture of what pusht.py judged.

    python recipes/rl/table.py runs/rl docs/act_rl.png

Success in the world and in the simulator on the same starts: rates with Wilson's 95 % interval, the gap
between the sides and the gain over the beginning with a bootstrap over starts.
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
HEAD = ["", "steps", "CPU min", "world", "simulator", "world − simulator", "gain", "highest reward"]
SIDES = {"world": COLORS[0], "simulator": COLORS[1]}


def interval(difference: np.ndarray) -> tuple[float, float, float]:
    """Gives the mean of paired differences and its 95 % interval, by resampling starts."""
    rng = np.random.default_rng(0)
    means = difference[rng.integers(len(difference), size=(DRAWS, len(difference)))].mean(1)
    return float(difference.mean()), *np.quantile(means, [0.025, 0.975]).tolist()


def rate(success: list[bool]) -> str:
    low, high = wilson(sum(success), len(success))
    return f"{np.mean(success):.2f} [{low:.2f}, {high:.2f}]"


def signed(values: tuple[float, float, float]) -> str:
    mean, low, high = values
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def row(name: str, one: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """Makes a line of one evaluation; before: that of the arm's beginning."""
    world, simulator, base = (
        np.array(of, float) for of in (one["world"], one["simulator"], before["simulator"])
    )
    gain = "–" if one is before else signed(interval(simulator - base))
    reward = f"{np.mean(one['simulator_reward']):.2f}"
    return [
        name,
        f"{one['steps']:,}",
        f"{one['cpu_seconds'] / 60:.1f}",
        rate(one["world"]),
        rate(one["simulator"]),
        signed(interval(world - simulator)),
        gain,
        reward,
    ]


def report(folder: Path, figure: Path | None) -> None:
    """Prints the table, the first and the last evaluation of each arm; writes the picture."""
    arms = {
        file.parent.name: json.loads(file.read_text()) for file in sorted(folder.glob("*/evaluations.json"))
    }
    rows = [
        row(f"{name}{at}", judged[i], judged[0])
        for name, judged in arms.items()
        for at, i in ((", before", 0), ("", -1))
    ]
    print(table(HEAD, rows))
    if figure is not None:
        plot(arms, figure)


def plot(arms: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Shows success on both sides against imagined steps, with intervals, one panel per arm."""
    with new_figure(path, 3.3 * len(arms), 2.8) as figure:
        axes = figure.subplots(1, len(arms), sharex=True, sharey=True, squeeze=False)[0]
        for ax, (name, judged) in zip(axes, arms.items(), strict=True):
            steps = np.array([one["steps"] for one in judged]) / 1e6
            for side, color in SIDES.items():
                bounds = np.array([wilson(sum(one[side]), len(one[side])) for one in judged])
                ax.fill_between(steps, *bounds.T, color=color, alpha=0.15, lw=0)
                ax.plot(steps, [np.mean(one[side]) for one in judged], color=color, label=f"in the {side}")
            ax.set_title(name)
            ax.set_xlabel("imagined steps, million")
        axes[0].set_ylim(0, 1)
        axes[0].set_ylabel("success")
        axes[0].legend(loc="upper left")


if __name__ == "__main__":
    report(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
