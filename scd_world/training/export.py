"""From a training to a world that others can use: its starts, its provenance, its card, its package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scd_datasets.store.store import WindowStore
from scd_world.training.config import TrainConfig
from scd_world.world.model_card import model_card
from scd_world.world.starts import StartStates
from scd_world.world.world import World

IMAGES = {  # of an evaluation, in a packaged world's card
    "worst.png": "The worst window: recorded, imagined, difference",
    "strip_0.png": "The first window: recorded, imagined, difference",
}


def pick_starts(
    store: WindowStore, episodes: np.ndarray, count: int, frames: int, seen: WindowStore | None = None
) -> StartStates:
    """About `count` pieces of `frames` frames, spread over these episodes; each one's first among them.

    seen: the same recordings as a model sees them, with what was found in the frames behind their state.
    """
    chosen = episodes[np.linspace(0, len(episodes) - 1, min(count, len(episodes))).round().astype(int)]
    each = max(1, count // len(chosen))
    rows, addresses = [], []
    for episode in chosen:
        length = int(store.lengths[episode])
        first = np.linspace(0, max(0, length - frames), each).round().astype(int)
        kept = np.unique((first[:, None] + np.arange(frames)).clip(max=length - 1))
        rows.append(np.stack([np.full_like(kept, episode), kept], axis=1))
        addresses.append(np.stack([np.full_like(kept, store.episode_index[episode]), kept], axis=1))
    places = np.concatenate(rows)
    windows = store.windows(places[:, 0], places[:, 1], num_steps=1)
    found: np.ndarray = np.zeros((0, 0), np.float32)
    if seen is not None and len(seen.schema.state) > len(store.schema.state):
        found = seen.state[seen.starts[places[:, 0]] + places[:, 1], len(store.schema.state) :]
    order = np.lexsort(np.concatenate(addresses).T[::-1])
    return StartStates(
        pixels=windows["pixels"][order, 0],
        state=windows["state"][order, 0],
        action=windows["action"][order, 0],
        addresses=np.concatenate(addresses)[order].astype(np.int64),
        task=windows["task"][order] if len(store.schema.tasks) > 1 else np.zeros(0, np.int64),
        found=found[order] if len(found) else found,
    )


def provenance(
    config: TrainConfig,
    store: WindowStore,
    held_out: np.ndarray,
    step: int,
    seconds: float,
    last_eval: Mapping[str, float],
    parent: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Gives what the world was trained with, as JSON. parent: the same of the world that it started from."""
    return {
        "data": config.data.repo_id or config.data.root,
        "fingerprint": store.fingerprint,
        "imagined": store.imagined,  # by whom the data was, in plain words; None where it was recorded
        "extra_datasets": config.prior.extra_datasets,
        "calibration_share": config.prior.calibration_share if config.prior.kind != "none" else 0.0,
        "episodes": len(store.lengths),
        "held_out_episodes": [int(i) for i in store.episode_index[held_out]],
        "init": config.init,
        "parent": dict(parent) if parent else None,
        "steps": step,
        "planned_steps": config.steps,
        "batch_size": config.batch_size,
        "sequence_length": config.sequence_length,
        "lr": config.optimizer.lr,
        "seed": config.seed,
        "training_seconds": round(seconds),
        "eval": dict(last_eval),
    }


def from_source(made: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Gives a provenance, and those of the worlds before it, that say so of where the data is from."""
    parent = made.get("parent")
    return {**made, "data": source, "parent": from_source(parent, source) if parent else None}


def export_world(
    world: str | Path,
    evaluation: str | Path,
    out: str | Path,
    weights: str = "float16",
    source: str | None = None,
    starts: StartStates | None = None,
    beside: Sequence[Path] = (),
) -> Path:
    """A world to ship: weights in fewer bits, and in its card what `scd-evaluate` measured and drew.

    weights: as of `World.save`; source: what to say of where the data is from, and whose it is, in the place
    of its folder; starts: others than the world's own; beside: further files, such as the data's license.
    """
    made = World.load(world)
    made.starts = starts or made.starts
    if source:
        made.provenance = from_source(made.provenance, source)
    report = (Path(evaluation) / "report.md").read_text(encoding="utf-8")
    # The few numbers that training measured on its way give place to the report's.
    card = model_card(made.schema, made.prior_config, made.provenance | {"eval": {}})
    made.card = card + "\n" + report.replace("\n## ", "\n### ").replace("# Fidelity", "## Fidelity", 1)
    images = {name: text for name, text in IMAGES.items() if (Path(evaluation) / name).is_file()}
    made.card += "".join(f"\n![{text}]({name})\n" for name, text in images.items())
    return made.save(out, weights, beside=[*(Path(evaluation) / name for name in images), *beside])
