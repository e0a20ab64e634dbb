"""A ranking as a page for people: the table of policies, the figures of agreement, and the scatter plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scd_world.reporting.plotting import COLORS, LINE, TEXT, new_figure
from scd_world.reporting.tables import number, table

NAMED = 6  # of the points: those furthest from the diagonal
ROWS = {
    "pearson": "Pearson's r",
    "spearman": "Spearman's ρ",
    "kendall": "Kendall's τ-b",
    "mmrv": "MMRV, strict > (0 is best)",
    "bias": "bias: imagined − real success",
    "mae": "mean absolute error of success",
}


def markdown(report: dict[str, Any]) -> str:
    """Writes the report as a page; also what the terminal shows."""
    rates = sorted(report["policies"], key=lambda one: (-one["real"]["rate"], -one["imagined"]["rate"]))
    rows = [
        [one["name"], span(one["real"]), span(one["imagined"]), number(one["agreement"])] for one in rates
    ]
    agreement = report["agreement"]
    lines = [
        f"# {len(rates)} policies in {report['world']} and in reality ({report['reality']})",
        "",
        table(["policy", "real: successes, % [95 %]", "imagined", "agree"], rows),
        "",
        table(["", "value", "95 %"], [measure(title, agreement[name]) for name, title in ROWS.items()]),
        "",
        *(f"- {line}" for line in remarks(agreement)),
        *(
            f"- Pearson's r without all of group {group!r}: {number(value, 3)}"
            for group, value in report["without_group"].items()
        ),
    ]
    return "\n".join(lines) + "\n"


def imagined_table(outcomes: Mapping[str, Mapping[int, bool]]) -> str:
    """Tabulates the successes in the world alone, best first: policy → episode → success."""
    ordered = sorted(outcomes.items(), key=lambda one: -sum(one[1].values()))
    rows = [[name, f"{sum(done.values())}/{len(done)}"] for name, done in ordered]
    return table(["policy", "imagined successes"], rows) + "\n"


def span(side: dict[str, Any]) -> str:
    """Writes successes, their rate and its interval in %."""
    low, high, rate = (round(100 * side[key]) for key in ("low", "high", "rate"))
    return f"{side['successes']}/{side['episodes']}, {rate} [{low}, {high}]"


def measure(title: str, value: dict[str, Any]) -> list[str]:
    return [title, number(value["value"], 3), f"[{number(value['low'], 3)}, {number(value['high'], 3)}]"]


def remarks(agreement: dict[str, Any]) -> list[str]:
    """Says in a line each what the tables do not."""
    left, episodes = agreement["leave_one_out"], agreement["episodes"]
    lines = [f"permutation test of Pearson's r, one-sided: p = {number(agreement['permutation_p'], 4)}"]
    if left["low"] is not None:
        lines.append(
            f"Pearson's r with one policy left out: {number(left['low'], 3)} (without {left['without_low']}) "
            f"to {number(left['high'], 3)} (without {left['without_high']})"
        )
    if episodes["count"]:
        lines.append(
            f"single episodes: the sides agree on {100 * episodes['agreement']:.0f} % of "
            f"{episodes['count']}, Cohen's κ = {number(episodes['kappa'])}"
        )
    lines.append(
        f"the imagination is {agreement['optimism']}"
        + (" (the bias' interval contains 0)" if agreement["optimism"] == "undecided" else "")
    )
    if undefined := agreement["pearson"]["undefined_draws"]:
        lines.append(f"{undefined} bootstrap samples had no variance on a side: no correlation, left out")
    return lines


def plot_scatter(path: Path, report: dict[str, Any]) -> None:
    """Plots imagined over real success, a point per policy with both Wilson intervals, and the diagonal."""
    policies, pearson = report["policies"], report["agreement"]["pearson"]
    groups = list(dict.fromkeys(one["group"] for one in policies))
    with new_figure(path, 6.2, 6.2) as figure:
        ax = figure.subplots()
        ax.plot([0, 100], [0, 100], color=LINE, linewidth=1, zorder=1)
        for i, group in enumerate(groups):
            plot_group(ax, [one for one in policies if one["group"] == group], COLORS[i % len(COLORS)], group)
        far = sorted(policies, key=lambda one: -abs(one["imagined"]["rate"] - one["real"]["rate"]))
        for one in far[:NAMED]:
            at = (100 * one["real"]["rate"], 100 * one["imagined"]["rate"])
            ax.annotate(one["name"], at, (5, 5), textcoords="offset points", fontsize=8, color=TEXT)
        ax.set(xlim=(-3, 103), ylim=(-3, 103), aspect="equal")
        ax.set_xlabel("success in reality, %")
        ax.set_ylabel("success in the imagination, %")
        if len(groups) > 1:
            ax.legend(loc="upper left")
        ax.set_title(
            f"{len(policies)} policies: Pearson's r = {number(pearson['value'])} "
            f"[{number(pearson['low'])}, {number(pearson['high'])}]"
        )


def plot_group(ax: Any, policies: list[dict[str, Any]], color: str, label: str) -> None:
    """Plots the points of one group, with their intervals."""
    sides = [[one[side] for one in policies] for side in ("real", "imagined")]
    x, y = (100 * np.array([one["rate"] for one in side]) for side in sides)
    errors = [
        100
        * np.array([[one["rate"] - one["low"] for one in side], [one["high"] - one["rate"] for one in side]])
        for side in sides
    ]
    ax.errorbar(x, y, errors[1], errors[0], "none", ecolor=color, elinewidth=0.8, alpha=0.45, zorder=2)
    ax.scatter(x, y, s=34, color=color, edgecolor="white", linewidth=0.6, zorder=3, label=label or None)
