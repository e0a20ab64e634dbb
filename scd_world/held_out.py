"""Which episodes a world may be judged on, and what is known about whether it has seen them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from scd_datasets.store import WindowStore
from scd_world.schema import DataSchema

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chosen:
    episodes: np.ndarray  # positions in the store
    held_out: str  # what is known about it, in words
    warning: str  # empty where they were held out for sure


def pick_episodes(provenance: dict[str, Any], store: WindowStore, wanted: list[int] | None) -> Chosen:
    """The episodes that training held out, or the `wanted` ones (dataset indices), with a verdict on them."""
    index = store.episode_index
    if wanted is not None and (unknown := sorted(set(wanted) - set(index.tolist()))):
        raise ValueError(
            f"{store.path} has no episodes {unknown}; its {len(index)} go from {index.min()} to {index.max()}"
        )
    asked = np.isin(index, wanted) if wanted is not None else np.ones(len(index), bool)
    trained_with = provenance.get("fingerprint")
    if trained_with != store.fingerprint:
        known = f"data {trained_with[:12]}" if trained_with else "data that it does not name"
        return warned(
            asked,
            "other data than it was trained with",
            f"this data ({store.fingerprint[:12]}) is not what the world was trained with ({known}): whether "
            "its episodes were seen in training cannot be checked",
        )
    held_out = np.isin(index, provenance.get("held_out_episodes", []))
    if wanted is None and held_out.any():
        asked = held_out
    if seen := int((asked & ~held_out).sum()):
        return warned(
            asked,
            "not all held out",
            f"{seen} of these {asked.sum()} episodes were TRAINED ON: the figures say nothing of new ones",
        )
    return Chosen(np.flatnonzero(asked), "held out of its training", "")


def warned(asked: np.ndarray, verdict: str, warning: str) -> Chosen:
    log.warning("WARNING: %s", warning)
    return Chosen(np.flatnonzero(asked), verdict, warning)


def check_schema(world: DataSchema, store: WindowStore) -> None:
    """Refuses data that the world cannot read as its own."""
    for name in ("cameras", "height", "width", "agent_pos", "environment_state", "action"):
        has, wants = getattr(store.schema, name), getattr(world, name)
        if has != wants:
            raise ValueError(
                f"{store.path} has {name} {has}, this world was trained with {wants}; evaluate it on data "
                "of its own kind (image size and the order of names included)"
            )
