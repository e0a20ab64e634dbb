"""Which episodes a world may be evaluated on, and whether it is known that none of them trained it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scd_datasets.store.store import WindowStore
from scd_world.world.world_config import parent_trainings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvalEpisodes:
    """The episodes to evaluate on, and what is known about them."""

    episodes: np.ndarray  # positions in the store
    held_out: str  # what is known about it, in words
    warning: str  # empty where they were held out for sure


def select_eval_episodes(
    provenance: dict[str, Any],
    store: WindowStore,
    wanted: list[int] | None,
    compared: Sequence[dict[str, Any]] = (),
) -> EvalEpisodes:
    """Selects the episodes that training held out, or the `wanted` ones (dataset indices), whatever they are.

    compared: provenances of further worlds; an episode counts as held out where it was so for all of them.
    Where it is not known that all are held out, the result has a warning, which is logged too. ValueError:
    the store lacks a wanted episode.
    """
    index = store.episode_index
    if wanted is not None and (unknown := sorted(set(wanted) - set(index.tolist()))):
        raise ValueError(
            f"{store.path} has no episodes {unknown}; its {len(index)} go from {index.min()} to {index.max()}"
        )
    chosen = np.isin(index, wanted) if wanted is not None else np.ones(len(index), bool)
    trained_with = provenance.get("fingerprint")
    if trained_with != store.fingerprint:
        known = f"data {trained_with[:12]}" if trained_with else "data that it does not name"
        return with_warning(
            chosen,
            "other data than it was trained with",
            f"this data ({store.fingerprint[:12]}) is not what the world was trained with ({known}): whether "
            "its episodes were trained on cannot be checked",
        )
    trainings = [made for world in (provenance, *compared) for made in (world, *parent_trainings(world))]
    same = [made for made in trainings if made.get("fingerprint") == store.fingerprint]
    held_out = np.logical_and.reduce([np.isin(index, made.get("held_out_episodes", [])) for made in same])
    if wanted is None and held_out.any():
        chosen = held_out
    if trained_on := int((chosen & ~held_out).sum()):
        return with_warning(
            chosen,
            "not all held out",
            f"{trained_on} of these {chosen.sum()} episodes were TRAINED ON: nothing follows for new ones",
        )
    if len(same) < len(trainings):
        return with_warning(
            chosen,
            "held out of its last training",
            "a world that it started from, or is compared with, was trained with other data: whether these "
            "episodes were among them cannot be checked",
        )
    return EvalEpisodes(np.flatnonzero(chosen), "held out of its training", "")


def with_warning(chosen: np.ndarray, held_out: str, warning: str) -> EvalEpisodes:
    log.warning("WARNING: %s", warning)
    return EvalEpisodes(np.flatnonzero(chosen), held_out, warning)
