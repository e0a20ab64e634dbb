"""A pusher that looks: where the block is it reads off the picture, as the world that plans for it does.

The world knows the block by sight, and nobody told it where it lies. What the pusher's eyes are told once is
which 16 numbers (the corners of PushT's block) belong to the four that are found: a linear map, fitted to
some recorded frames of the training episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from scd_datasets.sources.lerobot.features import ENVIRONMENT_STATE
from scd_datasets.sources.lerobot.reader import LeRobotFolder
from scd_policies.policy import Policy
from scd_world.objects.finder import ObjectFinder
from scd_world.world.world import World

EPISODES, EVERY = 40, 8  # of which the map is fitted to every eighth frame


class Eyes:
    """Acts as `policy` does on the environment state that it sees in the picture or, in a world that finds
    objects, on what that imagines of them."""

    def __init__(self, policy: Policy, finder: ObjectFinder, corners: np.ndarray) -> None:
        """corners (N + 1, S): the environment state of what is found and a 1."""
        self.policy, self.finder, self.corners = policy, finder, corners
        self.found: torch.Tensor | None = None

    def reset(self, seeds: Sequence[int]) -> None:
        self.found = None
        self.policy.reset(seeds)

    def act(self, obs: dict[str, Any]) -> np.ndarray:
        if "objects" in obs:
            found = obs["objects"]
        elif "pixels" in obs:
            frame = torch.from_numpy(np.ascontiguousarray(obs["pixels"]))[:, None]
            self.found = self.finder.find([frame], before=self.found)[:, 0]
            found = self.found.numpy()
        else:  # in the simulator as a model, which knows
            return self.policy.act(obs)
        state = (with_one(found) @ self.corners).astype(np.float32)
        return self.policy.act(obs | {"environment_state": state})


def with_one(found: np.ndarray) -> np.ndarray:
    return np.concatenate([found, np.ones_like(found[:, :1])], axis=1)


def fit_corners(data: str, world: World) -> np.ndarray:
    """Fits the map (N + 1, S) to recorded frames and states; says how far off it is."""
    held_out = set(world.provenance["held_out_episodes"])
    source = LeRobotFolder(data)
    kept = [episode for episode in source.episodes if episode.index not in held_out][:EPISODES]
    found, state = [], []
    for episode in kept:
        pixels = torch.from_numpy(source.pixels(episode)[::EVERY])
        found.append(world.codec.find(pixels[:, None]).squeeze(1).numpy())
        state.append(source.low_dim(episode)[ENVIRONMENT_STATE][::EVERY])
    x, y = with_one(np.concatenate(found)), np.concatenate(state)
    corners = np.linalg.lstsq(x, y, rcond=None)[0]
    off = np.abs(x @ corners - y).max(1)
    good = off < 5 * np.median(off)  # a frame in which it was not found tells nothing
    corners = np.linalg.lstsq(x[good], y[good], rcond=None)[0]
    off = np.abs(x @ corners - y).max(1)
    quantiles = np.quantile(off, [0.5, 0.95])
    print("the corners are seen to {:.1f} px of 512 (median), {:.1f} (95 %)".format(*quantiles))
    return corners
