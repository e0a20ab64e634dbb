"""What a training starts with: data, model, units, held-out windows."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from scd_datasets.store.store import WindowStore
from scd_world.robot_data.compatibility import check_schema
from scd_world.utils.atomic_folder import beside
from scd_world.world.world import World

log = logging.getLogger(__name__)


def copy_normalizer(source: str, store: WindowStore, target: Path) -> None:
    """The statistics of the world `source`, also for when it is gone. Data of another robot is refused; what
    lies outside the world's ranges is said."""
    world = World.load(source)
    check_schema(world.schema, store.schema, store.path)
    stats = world.stats
    for what, recorded, low, high in (
        ("state", store.state, stats.state_low, stats.state_high),
        ("action", store.action, stats.action_low, stats.action_high),
    ):
        names = getattr(store.schema, what)
        out = (recorded.min(0) < low.numpy()) | (recorded.max(0) > high.numpy())
        if out.any():
            log.warning(
                "%s of %s lies outside the range that %s was trained with; the range stays that one's",
                what, ", ".join(n for n, o in zip(names, out, strict=True) if o), source,
            )  # fmt: skip
    temp = beside(target, ".tmp")
    stats.save(temp)
    os.replace(temp, target)
