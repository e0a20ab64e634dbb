"""A benchmark's figures: latency against denoising steps, against context, and against quality (PNG)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scd_world.reporting.plotting import COLORS, LINE, new_figure


def plot_latency(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Plots ms per frame, left over denoising steps at the longest context, right over context at four steps.

    rows: as `stepping.compare_models` gives them. Nothing is written where none was timed.
    """
    timed = [r for r in rows if "p50_ms" in r]
    if not timed:
        return
    # On a shared CPU, processor time is what a step takes; a GPU has the clock alone.
    value = "cpu_ms" if "cpu_ms" in timed[0] else "p50_ms"
    batch = min(r["batch"] for r in timed)
    timed = [r for r in timed if r["batch"] == batch]
    context = max(r["context"] for r in timed)
    steps = sorted({r["num_steps"] for r in timed})
    usual = 4 if 4 in steps else steps[-1]
    over_steps = [r for r in timed if r["context"] == context]
    over_context = [r for r in timed if r["num_steps"] == usual]
    with new_figure(path, 9, 3.6) as figure:
        left, right = figure.subplots(1, 2)
        panels = (
            (left, over_steps, "num_steps", f"Over denoising steps, context {context}", "denoising steps"),
            (right, over_context, "context", f"Over the context, {usual} steps", "frames of context"),
        )
        for ax, shown, x, title, label in panels:
            for name, color in zip(dict.fromkeys(r["model"] for r in timed), COLORS, strict=False):
                own = sorted((r[x], r[value]) for r in shown if r["model"] == name)
                ax.plot(*zip(*own, strict=True), "o-", color=color, label=name, linewidth=1.8, markersize=4)
            ax.set(xscale="log", yscale="log", title=title, xlabel=label, ylabel="ms per frame")
            ax.set_xticks(sorted({r[x] for r in shown}), labels=sorted({r[x] for r in shown}))
            ax.minorticks_off()
        left.legend()


def plot_quality(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Plots PSNR over ms per frame, one panel per horizon; the Pareto front is joined by a line.

    rows: as `quality.quality` gives them.
    """
    horizons = sorted({int(h) for r in rows for h in r["psnr"]})
    kinds = list(dict.fromkeys(r["model"] for r in rows))
    with new_figure(path, 3.4 * len(horizons), 3.4) as figure:
        axes = figure.subplots(1, len(horizons), squeeze=False)[0]
        for ax, h in zip(axes, horizons, strict=True):
            points = [(r["ms"], r["psnr"][str(h)], r) for r in rows if r["psnr"].get(str(h)) is not None]
            front = pareto([(x, y) for x, y, _ in points])
            ax.plot(*zip(*front, strict=True), color=LINE, linewidth=1, zorder=1)
            for x, y, r in points:
                ax.scatter(x, y, color=COLORS[kinds.index(r["model"]) % len(COLORS)], zorder=2)
                label = f"{r['model']}, {r['num_steps']}"
                ax.annotate(label, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
            ax.set(xscale="log", title=f"Step {h}", xlabel="ms per frame", ylabel="PSNR, dB")


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Selects the (cost, quality) that nothing beats in both, by rising cost."""
    front: list[tuple[float, float]] = []
    for cost, quality in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or quality > front[-1][1]:
            front.append((cost, quality))
    return front
