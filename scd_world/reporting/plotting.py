"""One look for all figures: style, colors, and a figure that ends up in a PNG file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

LINE, TEXT = "#9aa1ab", "#4a5058"  # of axes and reference lines, of ticks and notes
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": LINE,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "axes.axisbelow": True,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "legend.frameon": False,
    "figure.dpi": 110,
}
COLORS = ("#e26a26", "#3a6ea5", "#4c9a6a", "#8a5fa8", "#c9a227", "#7a828d", "#b0413e")
IMAGINED, SHUFFLED, COPY = COLORS[0], COLORS[1], COLORS[5]  # what the world predicts; two baselines


@contextmanager
def new_figure(path: Path, width: float, height: float) -> Iterator[Any]:
    """Gives an empty figure of this size in inches to plot into, and writes it to `path` at the end."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(path)


def panel_grid(figure: Any, count: int, columns: int) -> list[Any]:
    """Gives `count` axes in rows of `columns`; the rest of the last row stays blank."""
    axes = np.asarray(figure.subplots(-(-count // columns), columns, squeeze=False)).ravel()
    for ax in axes[count:]:
        ax.axis("off")
    return list(axes[:count])
