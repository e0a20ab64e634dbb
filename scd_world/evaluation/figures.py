"""The report's figures (PNG): curves over the horizon, responses to every action dimension, calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scd_world.evaluation.state_errors import SHOWN, errors_to_show
from scd_world.reporting.plotting import COPY, IMAGINED, LINE, SHUFFLED, TEXT, new_figure, panel_grid


class Panel(NamedTuple):
    """One measure's place in the figure of curves."""

    title: str
    unit: str
    own: str  # the curve of what was imagined
    copy: str | None  # that of copy-last


# Errors that a good world makes a hundred times smaller than a copy does.
LOGARITHMIC = {f"{error.name}_imagined" for error in SHOWN if error.name.endswith(("_distance", "_angle"))}


def panels(curves: dict[str, dict], units: dict[str, str]) -> list[Panel]:
    """Lists the panels of those measures that the data has. units: of each error of the state."""
    errors = [
        Panel(error.title, units[error.name], f"{error.name}_imagined", f"{error.name}_copy")
        for error in errors_to_show(curves, "_imagined")
    ]
    known = [
        Panel("PSNR", "dB", "psnr_imagined", "psnr_copy"),
        Panel("PSNR of the pixels that changed", "dB", "psnr_changed_imagined", "psnr_changed_copy"),
        Panel("SSIM", "", "ssim_imagined", "ssim_copy"),
        Panel("Sharpness, as a share of the recorded", "", "sharpness_imagined", "sharpness_copy"),
        *errors,
        Panel("Block: area, as a share of the recorded", "", "block_area", None),
        Panel("Block: outline, off a rigid T's", "px", "block_outline_imagined", None),
        Panel("Windows never yet worse than a copy", "", "survival", None),
        Panel("Reward: mean square error", "the dataset's units²", "reward_square", None),
    ]
    return [panel for panel in known if panel.own in curves]


def plot_curves(
    path: Path, curves: dict[str, dict], units: dict[str, str], shuffled: dict | None, title: str
) -> None:
    """Plots one panel per measure: mean with its 95 % band against copy-last, median dotted."""
    shown = panels(curves, units)
    columns = min(4, len(shown))
    with new_figure(path, 3.7 * columns, 2.9 * -(-len(shown) // columns) + 0.5) as figure:
        axes = panel_grid(figure, len(shown), columns)
        for ax, panel in zip(axes, shown, strict=True):
            ax.set_title(f"{panel.title}, {panel.unit}" if panel.unit else panel.title)
            logarithmic = panel.own in LOGARITHMIC
            plot_band(ax, curves[panel.own], IMAGINED, "imagined: mean, 95 %", median=logarithmic)
            if panel.copy:
                plot_band(ax, curves[panel.copy], COPY, "last frame copied")
            if panel.own == "psnr_imagined" and shuffled:
                plot_band(ax, shuffled, SHUFFLED, "another window's actions")
            if panel.own == "psnr_imagined" and "psnr_best" in curves:
                best = curves["psnr_best"]["mean"]
                ax.plot(np.arange(1, len(best) + 1), best, "--", color=IMAGINED, label="best of the draws")
            if panel.copy and logarithmic:
                scale_logarithmic(ax, curves[panel.own], curves[panel.copy])
            elif panel.own in ("survival", "reward_square"):
                ax.set_ylim(bottom=0)
            ax.set_xlim(left=0)
            ax.set_xlabel("imagined step")
        handles = {label: h for ax in axes for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
        figure.suptitle(title, x=0.01, ha="left", fontsize=12)


def scale_logarithmic(ax: Any, own: dict, copy: dict) -> None:
    """Scales the axis from half of the smallest error that is shown, but over no more than four decades."""
    means = np.array([own["mean"], own["median"], copy["mean"]], float)
    positive = means[np.isfinite(means) & (means > 0)]
    if len(positive):
        ax.set_yscale("log")
        ax.set_ylim(max(positive.min() / 2, positive.max() / 1e4), positive.max() * 2)
        ax.yaxis.set_major_formatter("{x:g}")


def plot_band(ax: Any, curve: dict, color: str, label: str, median: bool = False) -> None:
    """Plots a curve's mean over its 95 % interval, and its median dotted."""
    steps = np.arange(1, len(curve["mean"]) + 1)
    low, high, mean, middle = (np.asarray(curve[name], float) for name in ("low", "high", "mean", "median"))
    ax.fill_between(steps, low, high, color=color, alpha=0.18, linewidth=0)
    ax.plot(steps, mean, color=color, linewidth=1.8, label=label)
    if median:
        ax.plot(steps, middle, color=color, linewidth=1.3, linestyle=":", label="median")


def plot_sweep(path: Path, sweeps: dict[str, dict], title: str, most: int = 6) -> None:
    """Plots, per action dimension, the state dimensions that respond most, and the pixels, over its value."""
    import matplotlib

    columns = min(4, len(sweeps))
    with new_figure(path, 4.3 * columns, 3.2 * -(-len(sweeps) // columns) + 0.4) as figure:
        axes = panel_grid(figure, len(sweeps), columns)
        for ax, (name, sweep) in zip(axes, sweeps.items(), strict=True):
            strongest = sorted(sweep["response"], key=lambda dim: -np.ptp(sweep["response"][dim]))[:most]
            for i, dim in enumerate(strongest):
                shade = matplotlib.colormaps["viridis"](0.1 + 0.75 * i / max(1, most - 1))
                ax.plot(sweep["values"], sweep["response"][dim], "o-", ms=3.5, color=shade, label=dim)
            ax.axhline(0, color=LINE, linewidth=0.8)
            ax.set_title(f"action {name}")
            ax.set_xlabel("held value")
            ax.set_ylabel("state change, the dataset's units")
            pixels = ax.twinx()
            pixels.fill_between(
                sweep["values"], sweep["pixel_change"], color=IMAGINED, alpha=0.13, linewidth=0
            )
            pixels.set_ylim(0, 2.5 * max(max(sweep["pixel_change"]), 1e-6))
            pixels.set_ylabel("|frame − middle value's|, gray levels", color=IMAGINED)
            pixels.grid(False)
            if strongest:
                ax.legend(fontsize=8, ncols=2)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12)


def plot_reliability(path: Path, success: dict[str, Any], episodes: int) -> None:
    """Plots how often success was observed over its predicted probability, with the number of steps."""
    bins = success["calibration"]
    with new_figure(path, 4.6, 4.2) as figure:
        ax = figure.subplots()
        plot_calibration(ax, [0, 1], bins["predicted"], bins["observed"], "success")
        for x, y, n in zip(bins["predicted"], bins["observed"], bins["count"], strict=True):
            ax.annotate(str(n), (x, y), textcoords="offset points", xytext=(5, -11), fontsize=8, color=TEXT)
        ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        ax.set(xlabel="predicted probability", ylabel="share that succeeded")
        ax.set_title(f"success of single steps, {episodes} episodes (numbers: steps)")


def plot_uncertainty(path: Path, uncertainty: dict[str, Any], of: str) -> None:
    """Plots the observed error of `of` over the predicted one, by tenths of the steps."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    predicted, observed = (100 * np.array(uncertainty[key]) for key in ("predicted", "observed"))
    ends = [0.7 * min(predicted.min(), observed.min()), 1.4 * max(predicted.max(), observed.max())]
    with new_figure(path, 4.6, 4.2) as figure:
        ax = figure.subplots()
        plot_calibration(ax, ends, predicted, observed, "tenths of the steps")
        ax.set(xscale="log", yscale="log")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(FormatStrFormatter("%g"))
            axis.set_minor_formatter(NullFormatter())
        ax.set(xlabel=f"predicted error of {of}, % of its range", ylabel="observed error, %")
        ax.set_title(f"uncertainty, {uncertainty['steps']} imagined steps, AUROC {uncertainty['auroc']:.2f}")


def plot_calibration(ax: Any, ends: Any, predicted: Any, observed: Any, label: str) -> None:
    """Plots what was observed over what was predicted; the dashed diagonal between `ends` is calibrated."""
    ax.plot(ends, ends, color=COPY, linewidth=1, linestyle="--", label="calibrated")
    ax.plot(predicted, observed, "o-", color=IMAGINED, label=label)
    ax.legend(loc="upper left")
