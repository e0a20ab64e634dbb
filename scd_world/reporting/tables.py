"""Reports in two forms: Markdown tables for people, JSON for programs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Turns a value into what JSON can hold: NaN and infinity become null, floats keep six digits."""
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Writes a report as UTF-8 JSON, by way of `plain`."""
    path.write_text(json.dumps(plain(report), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def table(head: list[str], rows: list[list[str]]) -> str:
    """Lays out a Markdown table that also reads well in a terminal; every row as long as `head`."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    ruled = [head, ["-" * (w - 1) + ":" for w in widths], *rows]
    return "\n".join(
        "| " + " | ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in ruled
    )


def number(value: float | None, digits: int = 2) -> str:
    """Formats a number of a known scale (dB, ms, a correlation); a dash where it is not known."""
    return "–" if value is None or not math.isfinite(value) else f"{value:z.{digits}f}"


def signed(value: float | None) -> str:
    """Formats a change in the data's own units, as `significant` does, with its sign."""
    return ("+" if value is not None and value > 0 else "") + significant(value)


def significant(value: float | None, digits: int = 3) -> str:
    """Formats a number in the data's own units, which may be pixels or radians: its first `digits` digits.

    A dash where it is not known; with an exponent below 1e-4 alone.
    """
    if value is None or not math.isfinite(value):
        return "–"
    rounded = float(f"{value:.{digits}g}")
    if rounded == 0 or abs(rounded) >= 10 ** (digits - 1):
        return f"{value:z.0f}"
    return f"{value:#.{digits}g}"
