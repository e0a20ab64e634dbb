"""One look for all figures: style and colors."""

from __future__ import annotations

from typing import Any

STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa1ab",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "axes.axisbelow": True,
    "xtick.color": "#4a5058",
    "ytick.color": "#4a5058",
    "legend.frameon": False,
    "figure.dpi": 110,
}


COLOURS = ("#e26a26", "#3a6ea5", "#4c9a6a", "#8a5fa8", "#c9a227", "#7a828d", "#b0413e")
