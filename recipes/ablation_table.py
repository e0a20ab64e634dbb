"""A table of trainings that differ in one thing: python recipes/ablation_table.py runs/fusion

Run folders are called <variant>_<seed>. Every figure is of the training's last evaluation on held-out
windows: mean over the seeds, and their range.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from scd_world.report import table

FIGURES = {"eval/loss": 5, "eval/psnr_h1": 2, "eval/psnr_h4": 2, "eval/psnr_h16": 2}


def main(folder: Path) -> None:
    variants = defaultdict(list)
    for log in sorted(folder.glob("*/log.jsonl")):
        name, _, seed = log.parent.name.rpartition("_")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        found = [line for line in lines if "eval/loss" in line]
        if found:
            variants[name].append((int(seed), found[-1]))
    rows = []
    for name, runs in sorted(
        variants.items(), key=lambda item: np.mean([r["eval/loss"] for _, r in item[1]])
    ):
        row = [name, ", ".join(str(seed) for seed, _ in runs)]
        for figure, digits in FIGURES.items():
            values = [run[figure] for _, run in runs]
            text = f"{np.mean(values):.{digits}f}"
            row.append(
                f"{text} [{min(values):.{digits}f}, {max(values):.{digits}f}]" if len(values) > 1 else text
            )
        rows.append(row)
    copied = next(iter(variants.values()))[0][1]
    rows.append(
        ["copying the last frame", "", "", *(f"{copied[f'eval/psnr_copy_h{h}']:.2f}" for h in (1, 4, 16))]
    )
    print(table(["variant", "seeds", "held-out loss", "PSNR at 1", "at 4", "at 16"], rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
