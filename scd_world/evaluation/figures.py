"""The report's figures: curves over the horizon and the response to every action dimension (PNG)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from scd_world.reporting.plotting import STYLE

IMAGINED, COPY, SHUFFLED = "#e26a26", "#7a828d", "#3a6ea5"

# title, unit, curve name of the imagination, of copy-last
PANELS: tuple[tuple[str, str, str, str | None], ...] = (
    ("PSNR", "dB", "psnr_imagined", "psnr_copy"),
    ("PSNR of the pixels that changed", "dB", "psnr_changed_imagined", "psnr_changed_copy"),
    ("SSIM", "", "ssim_imagined", "ssim_copy"),
    ("Agent: position error", "raw units", "agent_distance_imagined", "agent_distance_copy"),
    ("Block: position error", "px", "block_distance_imagined", "block_distance_copy"),
    ("Block: angle error", "degrees", "block_angle_imagined", "block_angle_copy"),
    (
        "Environment state: mean error",
        "raw units",
        "error_environment_state_imagined",
        "error_environment_state_copy",
    ),
    ("Windows never yet worse than a copy", "", "survival", None),
    ("Reward: mean square error", "raw units²", "reward_square", None),
)


# Errors that a good world makes a hundred times smaller than a copy does.
LOGARITHMIC = [own for _, _, own, _ in PANELS if own.endswith(("_distance_imagined", "_angle_imagined"))]


def plot_curves(path: Path, curves: dict[str, dict], shuffled: dict | None, title: str) -> None:
    """One panel per measure that the data has: mean with its 95 % band against copy-last, median dotted."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        from matplotlib.figure import Figure

        shown = [panel for panel in PANELS if panel[2] in curves]
        if "block_distance_imagined" in curves:
            shown = [panel for panel in shown if panel[2] != "error_environment_state_imagined"]
        columns = min(4, len(shown))
        rows = -(-len(shown) // columns)
        figure = Figure(figsize=(3.7 * columns, 2.9 * rows + 0.5), layout="constrained")
        axes = np.asarray(figure.subplots(rows, columns, squeeze=False)).ravel()
        for ax, (heading, unit, own, copy) in zip(axes, shown, strict=False):
            ax.set_title(f"{heading}, {unit}" if unit else heading)
            plot_band(
                ax,
                curves[own],
                IMAGINED,
                "imagined: mean, 95 %",
                median=own in LOGARITHMIC,
            )
            if copy:
                plot_band(ax, curves[copy], COPY, "last frame copied")
            if own == "psnr_imagined" and shuffled:
                plot_band(ax, shuffled, SHUFFLED, "another window's actions")
            if copy and own in LOGARITHMIC:
                logarithmic(ax, curves[own], curves[copy])
            elif own in ("survival", "reward_square"):
                ax.set_ylim(bottom=0)
            ax.set_xlim(left=0)
            ax.set_xlabel("imagined step")
        for ax in axes[len(shown) :]:
            ax.axis("off")
        handles = {label: h for ax in axes for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
        figure.suptitle(title, x=0.01, ha="left", fontsize=12)
        figure.savefig(path)


def logarithmic(ax: Any, own: dict, copy: dict) -> None:
    """From half of the smallest error that is seen, but no more than four decades."""
    means = np.array([own["mean"], own["median"], copy["mean"]], float)
    seen = means[np.isfinite(means) & (means > 0)]
    if len(seen):
        ax.set_yscale("log")
        ax.set_ylim(max(seen.min() / 2, seen.max() / 1e4), seen.max() * 2)
        ax.yaxis.set_major_formatter("{x:g}")


def plot_band(ax: Any, curve: dict, colour: str, label: str, median: bool = False) -> None:
    steps = np.arange(1, len(curve["mean"]) + 1)
    low, high = np.asarray(curve["low"], float), np.asarray(curve["high"], float)
    ax.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
    ax.plot(steps, np.asarray(curve["mean"], float), color=colour, linewidth=1.8, label=label)
    if median:
        ax.plot(
            steps,
            np.asarray(curve["median"], float),
            color=colour,
            linewidth=1.3,
            linestyle=":",
            label="median",
        )


def plot_sweep(path: Path, sweeps: dict[str, dict], title: str, most: int = 6) -> None:
    """Per action dimension: the state dimensions that answer most, and the pixels, over its value."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        from matplotlib.figure import Figure

        columns = min(4, len(sweeps))
        rows = -(-len(sweeps) // columns)
        figure = Figure(figsize=(4.3 * columns, 3.2 * rows + 0.4), layout="constrained")
        axes = np.asarray(figure.subplots(rows, columns, squeeze=False)).ravel()
        for ax, (name, sweep) in zip(axes, sweeps.items(), strict=False):
            strongest = sorted(sweep["response"], key=lambda dim: -np.ptp(sweep["response"][dim]))[:most]
            for i, dim in enumerate(strongest):
                shade = matplotlib.colormaps["viridis"](0.1 + 0.75 * i / max(1, most - 1))
                ax.plot(sweep["values"], sweep["response"][dim], "o-", ms=3.5, color=shade, label=dim)
            ax.axhline(0, color="#9aa1ab", linewidth=0.8)
            ax.set_title(f"action {name}")
            ax.set_xlabel("held value")
            ax.set_ylabel("state change, raw units")
            pixels = ax.twinx()
            pixels.fill_between(
                sweep["values"], sweep["pixel_change"], color=IMAGINED, alpha=0.13, linewidth=0
            )
            pixels.set_ylim(0, 2.5 * max(max(sweep["pixel_change"]), 1e-6))
            pixels.set_ylabel("|picture − middle value's|, grey levels", color=IMAGINED)
            pixels.grid(False)
            if strongest:
                ax.legend(fontsize=8, ncols=2)
        for ax in axes[len(sweeps) :]:
            ax.axis("off")
        figure.suptitle(title, x=0.01, ha="left", fontsize=12)
        figure.savefig(path)


def plot_reliability(path: Path, success: dict[str, Any], episodes: int) -> None:
    """How often a success came true against how probable it was said to be; bars: how often that was said."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.6, 4.2), layout="constrained")
        ax, bins = figure.subplots(), success["calibration"]
        ax.plot([0, 1], [0, 1], color=COPY, linewidth=1, linestyle="--", label="calibrated")
        ax.plot(bins["said"], bins["happened"], "o-", color=IMAGINED, label="success")
        for x, y, n in zip(bins["said"], bins["happened"], bins["count"], strict=True):
            ax.annotate(
                str(n), (x, y), textcoords="offset points", xytext=(5, -11), fontsize=8, color="#4a5058"
            )
        ax.set(
            xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="probability said", ylabel="share that succeeded"
        )
        ax.set_title(f"success of single steps, {episodes} episodes (numbers: steps)")
        ax.legend(loc="upper left")
        figure.savefig(path)


def plot_uncertainty(path: Path, doubt: dict[str, Any]) -> None:
    """How far the state strays against how far it was said to, by tenths of the steps."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.6, 4.2), layout="constrained")
        ax, said, true = figure.subplots(), *(100 * np.array(doubt[key]) for key in ("said", "true"))
        ends = [0.7 * min(said.min(), true.min()), 1.4 * max(said.max(), true.max())]
        ax.plot(ends, ends, color=COPY, linewidth=1, linestyle="--", label="calibrated")
        ax.plot(said, true, "o-", color=IMAGINED, label="tenths of the steps")
        ax.set(
            xscale="log",
            yscale="log",
            xlabel="error of the state said, % of its range",
            ylabel="true error, %",
        )
        ax.set_title(f"uncertainty, {doubt['steps']} imagined steps, AUROC {doubt['auroc']:.2f}")
        ax.legend(loc="upper left")
        figure.savefig(path)
