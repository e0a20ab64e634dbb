"""Infos of all rows at once: what Gymnasium's vector environments collect row by row.

A key's values are (B,), with a mask `_key` of the rows that have it; other rows hold 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Infos = dict[str, Any]


def batched(columns: Mapping[str, np.ndarray], rows: np.ndarray) -> Infos:
    """Gives the infos of these rows (r,), of columns (B,) that hold all rows'; of no rows, none."""
    infos: Infos = {}
    for key, values in columns.items() if len(rows) else ():
        infos[key] = np.zeros_like(values)
        infos[key][rows] = values[rows]
        infos[f"_{key}"] = mask_of(rows, len(values))
    return infos


def final(columns: Mapping[str, np.ndarray], last: Any, rows: np.ndarray) -> Infos:
    """Gives `final_info` and `final_obs` of the rows (r,) that are over; last: their observations (r, …)."""
    if not len(rows):
        return {}
    B = len(next(iter(columns.values())))
    observations = np.full(B, None, dtype=object)
    for i, row in enumerate(rows):
        observations[row] = row_of(last, i)
    return {
        "final_obs": observations,
        "_final_obs": mask_of(rows, B),
        "final_info": batched(columns, rows),
        "_final_info": mask_of(rows, B),
    }


def row_of(batch: Any, i: int) -> Any:
    """Gives row i of an observation: a dict, perhaps of dicts, of arrays (r, …)."""
    return {key: row_of(value, i) for key, value in batch.items()} if isinstance(batch, dict) else batch[i]


def mask_of(rows: np.ndarray, B: int) -> np.ndarray:
    mask = np.zeros(B, bool)
    mask[rows] = True
    return mask
