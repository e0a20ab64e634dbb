"""Which episodes a world may be judged on, and what is known about whether it has seen them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scd_datasets.store.store import WindowStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvalEpisodes:
    episodes: np.ndarray  # positions in the store
    held_out: str  # what is known about it, in words
    warning: str  # empty where they were held out for sure


def select_eval_episodes(
    provenance: dict[str, Any],
    store: WindowStore,
    wanted: list[int] | None,
    beside: Sequence[dict[str, Any]] = (),
) -> EvalEpisodes:
    """The episodes that training held out, or the `wanted` ones (dataset indices), with a verdict on them.

    beside: provenances of worlds that are compared with this one; what is held out is so of them all."""
    index = store.episode_index
    if wanted is not None and (unknown := sorted(set(wanted) - set(index.tolist()))):
        raise ValueError(
            f"{store.path} has no episodes {unknown}; its {len(index)} go from {index.min()} to {index.max()}"
        )
    asked = np.isin(index, wanted) if wanted is not None else np.ones(len(index), bool)
    trained_with = provenance.get("fingerprint")
    if trained_with != store.fingerprint:
        known = f"data {trained_with[:12]}" if trained_with else "data that it does not name"
        return with_warning(
            asked,
            "other data than it was trained with",
            f"this data ({store.fingerprint[:12]}) is not what the world was trained with ({known}): whether "
            "its episodes were seen in training cannot be checked",
        )
    trainings = [made for world in (provenance, *beside) for made in (world, *parent_trainings(world))]
    same = [made for made in trainings if made.get("fingerprint") == store.fingerprint]
    held_out = np.logical_and.reduce([np.isin(index, made.get("held_out_episodes", [])) for made in same])
    if wanted is None and held_out.any():
        asked = held_out
    if seen := int((asked & ~held_out).sum()):
        return with_warning(
            asked,
            "not all held out",
            f"{seen} of these {asked.sum()} episodes were TRAINED ON: the figures say nothing of new ones",
        )
    if len(same) < len(trainings):
        return with_warning(
            asked,
            "held out of its last training",
            "a world that it started from, or is compared with, was trained with other data: whether these "
            "episodes were among them cannot be checked",
        )
    return EvalEpisodes(np.flatnonzero(asked), "held out of its training", "")


def parent_trainings(provenance: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What the worlds were trained with whose weights this one started from (`init=`), the nearest first."""
    while (earlier := provenance.get("init_provenance")) is not None:
        yield earlier
        provenance = earlier


def with_warning(asked: np.ndarray, verdict: str, warning: str) -> EvalEpisodes:
    log.warning("WARNING: %s", warning)
    return EvalEpisodes(np.flatnonzero(asked), verdict, warning)
