"""Quality after equal training: python recipes/benchmark/equal_compute_table.py runs/equal

Run folders are called <architecture>_<seed>, each with its evaluation. Mean over the seeds
[smallest, largest].
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from scd_world.reporting.tables import table

HORIZONS = (1, 4, 16, 64)
FIGURES = {
    "PSNR, dB": ("psnr", 1),
    "PSNR of changed pixels, dB": ("psnr_changed", 1),
    "agent, px of 512": ("agent_distance", 1),
    "block, px of 512": ("block_distance", 1),
}


def main(folder: Path) -> None:
    curves: dict[str, list[dict]] = defaultdict(list)
    for path in sorted(folder.glob("*/evaluation/report.json")):
        kind, _, _seed = path.parent.parent.name.rpartition("_")
        curves[kind].append(json.loads(path.read_text())["curves"])
    rows = [
        [title, kind, str(len(runs)), *(cell(runs, f"{name}_imagined", h, digits) for h in HORIZONS)]
        for title, (name, digits) in FIGURES.items()
        for kind, runs in curves.items()
    ]
    first = next(iter(curves.values()))[:1]
    copied = [
        [title, "copy the last frame", "", *(cell(first, f"{name}_copy", h, digits) for h in HORIZONS)]
        for title, (name, digits) in FIGURES.items()
    ]
    lines = sorted([*rows, *copied], key=lambda line: list(FIGURES).index(line[0]))
    print(table(["", "model", "seeds", *(f"step {h}" for h in HORIZONS)], lines))


def cell(runs: list[dict], name: str, h: int, digits: int) -> str:
    values = [run[name]["mean"][h - 1] for run in runs]
    mean, low, high = (f"{f(values):.{digits}f}" for f in (np.mean, min, max))
    return f"{mean} [{low}, {high}]" if len(values) > 1 else mean


if __name__ == "__main__":
    main(Path(sys.argv[1]))
