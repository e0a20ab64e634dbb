"""The learned policies of the ranking experiment on PushT, cloned from what data/pusht recorded.

    python recipes/rank_pusht_policies.py runs/rank_policies

Clones of the scripted pusher at its better skills, of 10, 40, 150 episodes and of all there are; and eyes
that read the keypoints off the picture, from few pictures and from many. What is there already is kept.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import numpy as np
import torch
import zarr

from scd_policies.clone import learn_clone
from scd_policies.eyes import learn_eyes

DATA = Path("data/pusht")
SKILL = 0.8  # the worst pusher that is worth cloning
CLONES = {"clone_10": 10, "clone_40": 40, "clone_150": 150, "clone_all": None}
EYES = {"eyes_500": 500, "eyes_12000": 12_000}  # pictures, of all skills: a block may lie anywhere


def main(out: Path) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    store = zarr.open_group(f"{DATA}.zarr", mode="r")
    for name, episodes in CLONES.items():
        if not (path := out / f"{name}.safetensors").exists():
            rows, count = demonstrations(store, episodes)
            state, action = store["state"][:][rows], store["action"][:][rows]
            keys = {"agent_pos": state[:, :2], "environment_state": state[:, 2:]}
            print(f"{name}: {count} episodes, {len(rows)} steps, loss {learn_clone(keys, action, path):.4f}")
    for name, count in EYES.items():
        if not (path := out / f"{name}.safetensors").exists():
            pixels, state = pictures(store, count)
            print(f"{name}: {count} pictures, loss {learn_eyes(pixels, state, path):.4f}")


def demonstrations(store: zarr.Group, episodes: int | None) -> tuple[np.ndarray, int]:
    """The steps of the first successful episodes of a good pusher, and how many episodes they are."""
    recorded = json.loads((DATA / "meta" / "recording.json").read_text())["episodes"]
    good = [e["success"] and e["policy_kwargs"].get("skill", -1) >= SKILL for e in recorded]
    ends, index = store["meta/episode_ends"][:], store["meta/episode_index"][:]
    spans = [
        np.arange(begin, end) for begin, end, i in zip([0, *ends[:-1]], ends, index, strict=True) if good[i]
    ][:episodes]
    return np.concatenate(spans), len(spans)


def pictures(store: zarr.Group, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures from all over the recordings, in runs of eight as they lie on disk, and their keypoints."""
    runs = store["state"].shape[0] // 8
    chosen = np.linspace(0, runs - 1, count // 8).astype(int)
    rows = (8 * chosen[:, None] + np.arange(8)).ravel()
    return store["pixels"].oindex[rows, 0], store["state"][:][rows, 2:]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
