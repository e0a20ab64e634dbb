"""Tables and a figure of what measure.py measured.

    python recipes/ablations/table.py runs/ablations docs/ablations.png

Run folders are called <question>-<variant>_<seed>, and base_<seed>, which every question is asked of. Mean
over the seeds [smallest, largest]; the difference to the base is taken seed by seed.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from scd_world.reporting.plotting import COLORS, new_figure, panel_grid
from scd_world.reporting.tables import table

Runs = dict[int, dict[str, float]]  # seed: what was measured
TITLES = {
    "fusion": "how the decoder gets the context",
    "depth": "how the layers are divided (encoder + decoder)",
    "noise": "perturbation η of the context",
    "noise_samples": "noise samples K per encoder pass",
    "predict": "what the decoder predicts (head=patch, no gate)",
    "action": "which network gets the action",
}
OTHER_LOSS = {"predict"}  # errors of frames and of velocities are not compared
BASE = {"fusion": "concat, added", "depth": "4+2", "noise": "0.05", "noise_samples": "1", "action": "both"}


def read(folder: Path) -> dict[str, dict[str, Runs]]:
    """Reads the runs per question and variant; the base is one of each, under its value there."""
    found: dict[str, dict[str, Runs]] = {question: {} for question in TITLES}
    runs: dict[str, Runs] = defaultdict(dict)
    for path in sorted(folder.glob("*/measured.json")):
        name, _, seed = path.parent.name.rpartition("_")
        runs[name][int(seed)] = json.loads(path.read_text())
    for question, variant in BASE.items():
        found[question][variant] = runs["base"]
    for name in sorted(runs.keys() - {"base"}):
        question, _, variant = name.partition("-")
        found[question][variant.replace("-added", ", added")] = runs[name]
    return {question: variants for question, variants in found.items() if len(variants) > 1}


def folder_name(question: str, variant: str) -> str:
    return "base" if BASE.get(question) == variant else f"{question}-{variant.replace(', added', '-added')}"


def spread(runs: Runs, name: str, digits: int) -> str:
    values = [run[name] for run in runs.values()]
    mean, low, high = (f"{of(values):.{digits}f}" for of in (np.mean, min, max))
    return f"{mean} [{low}, {high}]" if len(values) > 1 else mean


def loss(runs: Runs) -> str:
    return spread({seed: {"loss": 1e3 * run["loss"]} for seed, run in runs.items()}, "loss", 2)


def change_from(runs: Runs, base: Runs) -> str:
    """Computes the change of the loss in %, over the seeds that both have."""
    seeds = sorted(runs.keys() & base.keys())
    if runs is base or not seeds:
        return ""
    change = [100 * (runs[s]["loss"] / base[s]["loss"] - 1) for s in seeds]
    between = f" [{min(change):+.0f}, {max(change):+.0f}]" if len(seeds) > 1 else ""
    return f"{np.mean(change):+.0f}{between}"


def rows(question: str, variants: dict[str, Runs], speed: dict[str, dict[str, float]]) -> list[list[str]]:
    base = variants.get(BASE.get(question, ""), next(iter(variants.values())))
    lines = []
    for variant, runs in sorted(variants.items(), key=lambda v: np.mean([r["loss"] for r in v[1].values()])):
        frame = " / ".join(f"{np.mean([r[f'psnr_{h}'] for r in runs.values()]):.1f}" for h in (1, 4, 16))
        ratio = np.mean([r["loss_shuffled"] / r["loss"] for r in runs.values()])
        took = speed.get(folder_name(question, variant), {})
        lines.append(
            [
                variant,
                str(len(runs)),
                *(("", "") if question in OTHER_LOSS else (loss(runs), change_from(runs, base))),
                *(spread(runs, f"psnr_changed_{h}", 1) for h in (1, 4, 16)),
                frame,
                "" if question in OTHER_LOSS else f"{ratio:.2f}",
                *(f"{took[k]:.{d}f}" if took else "" for k, d in (("update_ms", 0), ("frame_ms", 1))),
            ]
        )
    run = next(iter(base.values()))
    changed = (f"{run[f'copied_changed_{h}']:.1f}" for h in (1, 4, 16))
    frame = " / ".join(f"{run[f'copied_{h}']:.1f}" for h in (1, 4, 16))
    return [
        *lines,
        ["copy the last frame", "", f"{1e3 * run['loss_copied']:.2f}", "", *changed, frame, "", "", ""],
    ]


HEAD = [
    "variant", "seeds", "held-out loss ×10³", "change from the base, %", "dB of changed pixels at 1", "at 4",
    "at 16", "whole frame at 1 / 4 / 16", "loss, shuffled / true actions", "update, ms", "frame, ms",
]  # fmt: skip


def plot(questions: dict[str, dict[str, Runs]], out: Path) -> None:
    """Plots one panel per question: a dot per seed, the mean, the range."""
    with new_figure(out, 12, 6) as figure:
        axes = panel_grid(figure, len(questions), -(-len(questions) // 2))
        for ax, (question, variants) in zip(axes, questions.items(), strict=True):
            ordered = sorted(variants.items(), key=lambda v: -np.mean([r["loss"] for r in v[1].values()]))
            for i, (variant, runs) in enumerate(ordered):
                values = [1e3 * run["loss"] for run in runs.values()]
                color = COLORS[0] if BASE.get(question) == variant else COLORS[1]
                ax.plot([min(values), max(values)], [i, i], color=color, linewidth=2, alpha=0.5)
                ax.plot(values, [i] * len(values), "o", color=color, markersize=4)
                ax.plot(np.mean(values), i, "|", color="black", markersize=12)
            ax.set_yticks(range(len(ordered)), [variant for variant, _ in ordered])
            ax.set_title(TITLES[question], fontsize=10)
            ax.set_xlabel("held-out loss of the pixels × 10³", fontsize=8)
        figure.suptitle("Dots: seeds; stroke: mean; orange: the base. Further left is better", fontsize=10)


def main(folder: Path, figure: Path | None) -> None:
    questions = read(folder)
    speed = json.loads(path.read_text()) if (path := folder / "speed.json").exists() else {}
    for question, variants in questions.items():
        title = TITLES[question]
        print(f"\n### {title[0].upper()}{title[1:]}\n\n{table(HEAD, rows(question, variants, speed))}")
    if figure:
        plot({name: variants for name, variants in questions.items() if name not in OTHER_LOSS}, figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
