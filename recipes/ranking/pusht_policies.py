"""The learned policies of the ranking experiment on PushT, from the recordings in data/pusht.

    python recipes/ranking/pusht_policies.py runs/rank_policies [world]

Nearest neighbors in recordings of the scripted pusher at its best, from 3 recordings to all there are; and
state estimators that read the keypoints off an image, from few images and from many. None learns from a
recording that begins where the world's episodes can begin: a nearest neighbor would replay it. Files that
exist are kept.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from scd_policies.nearest_neighbor import fit_nearest_neighbor
from scd_policies.state_estimator import train_state_estimator
from scd_world.world.starts import StartStates
from scd_world.world.world import find_folder

WORLD = Path("envs/scd_envs/worlds/pusht")
DATA = Path("data/pusht")
SKILL = 1.0  # of the pusher that is imitated: mistakes would be copied too
NEIGHBORS = {  # recordings
    "neighbor_3": 3,
    "neighbor_5": 5,
    "neighbor_10": 10,
    "neighbor_20": 20,
    "neighbor_40": 40,
    "neighbor_all": None,
}
ESTIMATORS = {
    "estimator_12000": 12_000,
    "estimator_500": 500,
}  # images, of all skills: a block may lie anywhere


def main(out: Path, world: Path = WORLD) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    store = zarr.open_group(f"{DATA}.zarr", mode="r")
    state, action = store["state"][:], store["action"][:]
    spans = recordings(store, state, StartStates.load(find_folder(world) / "starts").state)
    good = [span for episode, span in spans if skilful(episode)]
    for name, count in NEIGHBORS.items():
        if not (path := out / f"{name}.safetensors").exists():
            rows, ends = np.concatenate(good[:count]), np.cumsum([len(span) for span in good[:count]])
            keys = {"agent_pos": state[rows, :2], "environment_state": state[rows, 2:]}
            fit_nearest_neighbor(keys, action[rows], ends, path)
            print(f"{name}: {len(ends)} episodes, {len(rows)} steps", flush=True)
    for name, count in ESTIMATORS.items():
        if not (path := out / f"{name}.safetensors").exists():
            rows = spread(np.concatenate([span for _, span in spans]), count)
            loss = train_state_estimator(store["pixels"].oindex[rows, 0], state[rows, 2:], path)
            print(f"{name}: {len(rows)} images, loss {loss:.4f}", flush=True)


def recordings(
    store: zarr.Group, state: np.ndarray, taken: np.ndarray
) -> list[tuple[dict[str, Any], np.ndarray]]:
    """Gives each episode's record and its rows; without those that begin at one of the `taken` states."""
    known = json.loads((DATA / "meta" / "recording.json").read_text())["episodes"]
    ends = store["meta/episode_ends"][:]
    begins = np.concatenate([[0], ends[:-1]])
    free = [abs(taken - state[begin]).max(1).min() > 1 for begin in begins]  # px
    index = store["meta/episode_index"][:]
    return [
        (known[i], np.arange(begin, end))
        for i, begin, end, one in zip(index, begins, ends, free, strict=True)
        if one
    ]


def skilful(episode: dict[str, Any]) -> bool:
    return episode["success"] and episode["policy_kwargs"].get("skill", -1) >= SKILL


def spread(rows: np.ndarray, count: int) -> np.ndarray:
    """Selects about `count` of these rows, in runs of eight as they lie on disk."""
    runs = np.array_split(rows, len(rows) // 8)
    return np.concatenate([runs[i] for i in np.linspace(0, len(runs) - 1, count // 8).astype(int)])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
