"""How fast random windows come from a store: streamed from disk and from RAM, on one core."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from scd_datasets.store.arrays import EpisodeArrays
from scd_datasets.store.store import WindowStore
from scd_datasets.store.writer import write_store
from scd_world.robot_data.schema import DataSchema

WINDOW, BATCH = 16, 64  # frames of a window, windows of a batch


def measure(path: str | Path, seconds: float = 5.0) -> dict[str, float]:
    """Measures frames per CPU-second (of all threads) in random windows of 16 frames, `streamed` and `from
    RAM`, each for so many seconds."""
    return {
        name: _frames_per_second(WindowStore.open(path, in_memory), seconds)
        for name, in_memory in (("streamed", False), ("from RAM", True))
    }


def _frames_per_second(store: WindowStore, seconds: float) -> float:
    rng = np.random.default_rng(0)
    long = np.flatnonzero(store.lengths >= WINDOW)
    if not len(long):
        raise ValueError(f"{store.path} has no episode of {WINDOW} frames, the length of the windows to read")
    frames, start = 0, time.process_time()
    while (spent := time.process_time() - start) < seconds:
        episodes = rng.choice(long, BATCH)
        starts = rng.integers(0, store.lengths[episodes] - WINDOW + 1)
        store.windows(episodes, starts, WINDOW - 1)
        frames += BATCH * WINDOW
    return frames / spent


def synthetic_store(path: str | Path, episodes: int = 100, size: int = 96) -> WindowStore:
    """Writes a store of PushT's shape: a static scene in which a patch of noise moves."""
    schema = DataSchema(
        cameras=("image",),
        height=size,
        width=size,
        agent_pos=("x", "y"),
        environment_state=(),
        action=("x", "y"),
        action_low=(0.0, 0.0),
        action_high=(1.0, 1.0),
        fps=10,
        tasks=("synthetic",),
        reward=True,
        success=True,
        horizon=200,
    )

    def make() -> Iterator[EpisodeArrays]:
        rng = np.random.default_rng(0)
        for index in range(episodes):
            pixels = np.full((200, 1, size, size, 3), 255, np.uint8)
            pixels[:, :, size // 4 : size // 2, size // 3 : size // 2] = (119, 136, 153)
            for frame in range(200):
                at = (frame + index) % (size - 8)
                pixels[frame, 0, at : at + 8, at : at + 8] = rng.integers(0, 255, (8, 8, 3))
            positions = rng.random((200, 2), np.float32)
            yield EpisodeArrays(pixels, positions, positions, np.zeros(200), np.zeros(200), index)

    return write_store(path, schema, make())
