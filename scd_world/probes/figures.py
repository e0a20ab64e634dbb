"""The probes' figures, one per probe (PNG)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scd_world.reporting.plotting import COLORS, COPY, new_figure, panel_grid

MOST = 12  # heat maps of similarity: of more layers, so many are shown


Plot = Callable[[Any, dict[str, Any]], None]  # a figure, a report


def write_figures(out: Path, report: dict[str, Any]) -> None:
    """Writes a figure per probe into the folder `out`."""
    figures: dict[str, tuple[Plot, float, float]] = {
        "similarity": (similarity, 12, 3.7),
        "attention": (attention, 9, 3.8),
        "skip": (skip, 9, 3.9),
        "within_frame": (within_frame, 9, 3.9),
        "ablate_layer": (ablate_layer, 6.5, 3.6),
    }
    for name, (plot, width, height) in figures.items():
        with new_figure(out / f"{name}.png", width, height) as figure:
            plot(figure, report)


def similarity(figure: Any, report: dict[str, Any]) -> None:
    """Plots, left, the cosine between all pairs of steps, layer by layer; right, its mean over the layers."""
    rows = report["similarity"]
    left, right = figure.subfigures(1, 2, width_ratios=(1.8, 1))
    shown = [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, MOST).round().astype(int))]
    axes = panel_grid(left, len(shown), min(5, len(shown)))
    n = len(rows[0]["matrix"])
    image = None
    for ax, row in zip(axes, shown, strict=True):
        image = ax.imshow(row["matrix"], vmin=0, vmax=1, cmap="magma", extent=(0.5, n + 0.5, n + 0.5, 0.5))
        ax.set_title(f"layer {row['layer']}" if row["layer"] else "input", fontsize=9)
        ax.set_xticks([1, n])
        ax.set_yticks([1, n])
        ax.grid(False)
    left.colorbar(image, ax=list(left.axes), shrink=0.7, label="cosine")
    left.suptitle("Cosine of a layer's features between denoising steps", x=0.01, ha="left", fontsize=11)
    ax = right.subplots()
    names = {
        "mean": ("between steps", COLORS[0], "-"),
        "centered": ("without the common part", COLORS[1], "-"),
        "added": ("what the layer adds", COLORS[2], "-"),
        "between_frames": ("between frames, one step", COPY, "--"),
    }
    for name, (label, color, line) in names.items():
        points = [(row["layer"], row[name]) for row in rows if row[name] is not None]
        ax.plot(*zip(*points, strict=True), line, marker="o", ms=3.5, color=color, label=label)
    mark_middle(ax, report)
    layer_axis(ax, len(rows) - 1, first=0)
    ax.set(title="Mean over all pairs of steps", ylabel="cosine", ylim=(min(0, ax.get_ylim()[0]), 1.02))
    ax.legend(fontsize=8)


def attention(figure: Any, report: dict[str, Any]) -> None:
    """Plots the share of attention on the past, left by layer and step, right its mean over the layers."""
    past, uniform = np.array(report["attention"]["past"]), report["attention"]["uniform"]
    L, n = past.shape
    left, right = figure.subplots(1, 2)
    image = left.imshow(
        past, vmin=0, vmax=1, cmap="magma", aspect="auto", extent=(0.5, n + 0.5, L + 0.5, 0.5)
    )
    left.set(title="Share of attention on past frames", xlabel="denoising step", ylabel="layer")
    left.set_yticks(range(1, L + 1))
    left.grid(False)
    figure.colorbar(image, ax=left)
    layers = range(1, L + 1)
    right.plot(layers, past.mean(1), "o-", color=COLORS[0], label="mean of all steps")
    right.plot(layers, past[:, 0], ":", color=COLORS[1], label="first step")
    right.plot(layers, past[:, -1], "--", color=COLORS[2], label="last step")
    right.axhline(uniform, color=COPY, linewidth=1, label="uniform attention")
    right.set(title="Over the layers", ylim=(0, 1), ylabel="share")
    layer_axis(right, L)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)


def skip(figure: Any, report: dict[str, Any]) -> None:
    """Plots the change of PSNR over the number of steps in which all layers run."""
    styles = {
        ("middle", "skipped"): (COLORS[0], "-", "middle layers skipped"),
        ("middle", "reused"): (COLORS[1], "-", "middle layers reused"),
        ("all", "skipped"): (COLORS[0], ":", "all layers skipped"),
        ("all", "reused"): (COLORS[1], ":", "all layers reused"),
    }
    axes = changes(figure, report, "denoising steps in which all layers run")
    for ax, name in axes:
        for (layers, how), (color, line, label) in styles.items():
            rows = [r for r in report["skip"] if (r["layers"], r["how"]) == (layers, how)]
            curve(ax, sorted(rows, key=lambda r: r["first_steps"]), "first_steps", name, color, line, label)
        for how, color in {"skipped": COLORS[0], "reused": COLORS[1]}.items():
            if how in report["finetuned"]:
                finetuned_point(ax, 1, report["finetuned"][how][name], color, f"{how}, fine-tuned")
        ax.set_xticks(sorted({r["first_steps"] for r in report["skip"]}))
    legend(figure, axes)


def within_frame(figure: Any, report: dict[str, Any]) -> None:
    """Plots the change of PSNR over the number of last layers that attend to no past."""
    axes = changes(figure, report, "last layers that attend to no past")
    for ax, name in axes:
        curve(ax, report["within_frame"], "last", name, COLORS[0], "-", "past hidden")
        if "within_frame" in report["finetuned"]:
            row = report["finetuned"]["within_frame"][name]
            finetuned_point(ax, report["finetune_last"], row, COLORS[2], "past hidden, fine-tuned")
        ax.set_xticks([r["last"] for r in report["within_frame"]])
    legend(figure, axes)


def ablate_layer(figure: Any, report: dict[str, Any]) -> None:
    """Plots how much larger the loss is without each layer."""
    ax, rows = figure.subplots(), report["ablate_layer"]
    layers = np.array([r["layer"] for r in rows])
    bars = {
        "everywhere": (-0.2, COLORS[0], "ablated"),
        "denoised": (0.2, COLORS[1], "ablated in denoising alone"),
    }
    for name, (shift, color, label) in bars.items():
        more = [100 * (r[f"{name}_ratio"] - 1) for r in rows]
        ax.bar(layers + shift, more, 0.36, color=color, label=label)
    ax.axhline(0, color=COPY, linewidth=1)
    ax.set(title="Increase of the loss without one layer", ylabel="%")
    if max(r["everywhere_ratio"] for r in rows) > 4:
        ax.set_yscale("symlog", linthresh=10)
        ax.yaxis.set_major_formatter("{x:g}")
    layer_axis(ax, len(rows))
    ax.legend(fontsize=8)


# ---- parts ---------------------------------------------------------------------------------------


def changes(figure: Any, report: dict[str, Any], label: str) -> list[tuple[Any, str]]:
    """Makes two panels for a change of PSNR: first imagined frame, and the last one compared."""
    names = [name for name in report["copy_last"] if name.startswith("h")]
    chosen = list(dict.fromkeys([names[0], names[-1]]))
    axes = np.asarray(figure.subplots(1, len(chosen), squeeze=False))[0]
    for ax, name in zip(axes, chosen, strict=True):
        ax.set(title=f"Imagined frame {name[1:]}", xlabel=label, ylabel="change of PSNR, dB")
        ax.axhline(0, color=COPY, linewidth=1)
        floor = report["copy_last"][name] - report["unchanged"][name]
        ax.axhline(floor, color=COPY, linewidth=1, linestyle="--", label="last frame copied")
    return list(zip(axes, chosen, strict=True))


def curve(
    ax: Any, rows: Sequence[dict[str, Any]], x: str, name: str, color: str, line: str, label: str
) -> None:
    """Plots the change of PSNR with its interval over `x`."""
    at = [row[x] for row in rows]
    low, high = (np.array([row[name][side] for row in rows], float) for side in ("low", "high"))
    ax.fill_between(at, low, high, color=color, alpha=0.15, linewidth=0)
    ax.plot(at, [row[name]["change"] for row in rows], line, marker="o", ms=3.5, color=color, label=label)


def finetuned_point(ax: Any, at: float, row: dict[str, float], color: str, label: str) -> None:
    """Plots one fine-tuned change with its interval."""
    error = [[row["change"] - row["low"]], [row["high"] - row["change"]]]
    style = {"marker": "D", "ms": 6, "mfc": "white", "mec": color, "ecolor": color, "linestyle": "none"}
    ax.errorbar([at], [row["change"]], np.nan_to_num(np.abs(error)), label=label, zorder=3, **style)


def legend(figure: Any, axes: Sequence[tuple[Any, str]]) -> None:
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), fontsize=8)


def layer_axis(ax: Any, layers: int, first: int = 1) -> None:
    every = max(1, layers // 12)
    ax.set_xticks(range(first, layers + 1, every))
    ax.set_xlabel("layer (0: input)" if first == 0 else "layer")


def mark_middle(ax: Any, report: dict[str, Any]) -> None:
    middle = report["middle_layers"]
    ax.axvspan(middle[0] - 0.5, middle[-1] + 0.5, color="#f2f3f5", zorder=0)
