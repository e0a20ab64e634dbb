"""From a data config to the window store that training and evaluation read."""

from __future__ import annotations

from pathlib import Path

from scd_datasets.store import WindowStore
from scd_world.config import DataConfig


def open_store(data: DataConfig, out: Path) -> WindowStore:
    """The store that `data` names; a LeRobotDataset's is built once, under `out`."""
    if not data.root:
        raise ValueError(f"data={data.kind} needs data.root=<folder>")
    return WindowStore.open(data.root)
