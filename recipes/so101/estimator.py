"""What a policy knows of the block from the picture: a network, trained on recorded images and poses.

    python recipes/so101/estimator.py data/so101 runs/so101/train/world runs/so101_estimator.safetensors

The recordings hold the block's pose, the world does not: the network makes up for it in front of a policy. It
learns from no episode that the world holds out, since a ranking starts there. A file that exists is kept.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from scd_datasets.sources.lerobot.features import ENVIRONMENT_STATE
from scd_datasets.sources.lerobot.reader import LeRobotFolder
from scd_policies.state_estimator import EstimatedStatePolicy, train_state_estimator

STEPS = 12  # of an episode: later the block may be in the hand, and no policy looks any more


class Estimate:
    """A policy whose action is the block's position as the estimator has it."""

    def reset(self, seeds: list[int]) -> None:
        pass

    def act(self, obs: dict[str, np.ndarray]) -> np.ndarray:
        return obs["environment_state"]


def main(data: str, world: str, out: str, updates: str = "1500") -> None:
    if Path(out).exists():
        return
    torch.set_num_threads(1)
    config = json.loads((Path(world) / "config.json").read_text(encoding="utf-8"))
    held_out = set(config["provenance"]["held_out_episodes"])
    source = LeRobotFolder(data)
    learned = read(source, [e for e in source.episodes if e.index not in held_out])
    tested = read(source, [e for e in source.episodes if e.index in held_out])
    loss = train_state_estimator(*learned, out, updates=int(updates))
    estimate = EstimatedStatePolicy(Estimate(), out).act({"pixels": tested[0]})
    error = 1000 * np.linalg.norm(estimate - tested[1], axis=1)
    print(
        f"{len(learned[0])} images, loss {loss:.4f}; on {len(tested[0])} held-out images the block is off by "
        f"{np.median(error):.1f} mm (median), {np.quantile(error, 0.9):.1f} mm (nine of ten)"
    )


def read(source: LeRobotFolder, episodes: list) -> tuple[np.ndarray, np.ndarray]:
    """Reads the first steps of episodes: images (N, H, W, 3) and the block's position (N, 3), m."""
    images = [source.pixels(episode)[:STEPS, 0] for episode in episodes]
    states = [source.low_dim(episode)[ENVIRONMENT_STATE][:STEPS, :3] for episode in episodes]
    return np.concatenate(images), np.concatenate(states)


if __name__ == "__main__":
    main(*sys.argv[1:])
