"""A small store whose every number says where it belongs: value = 1000 · episode + frame."""

import numpy as np
import pytest

from scd_datasets.store import EpisodeArrays, WindowStore, write_store
from scd_world.schema import DataSchema

LENGTHS = (12, 30, 7, 21)


def numbered_schema(**changes) -> DataSchema:
    values = {
        "cameras": ("top", "wrist"),
        "height": 8,
        "width": 12,
        "agent_pos": ("x", "y"),
        "environment_state": ("block",),
        "action": ("dx", "dy"),
        "action_low": (-1.0, -1.0),
        "action_high": (1.0, 1.0),
        "fps": 10,
        "tasks": ("count",),
        "reward": True,
        "success": True,
        "horizon": max(LENGTHS),
    }
    return DataSchema(**(values | changes))


def numbered_episode(episode: int, length: int, schema: DataSchema) -> EpisodeArrays:
    """Pixels carry (episode, frame, camera); the block moves only in the second half of an episode."""
    frames = np.arange(length)
    pixels = np.zeros((length, len(schema.cameras), schema.height, schema.width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = episode, frames[:, None, None, None]
    pixels[..., 2] = np.arange(len(schema.cameras))[None, :, None, None]
    number = 1000 * episode + frames
    state = np.repeat(number[:, None], len(schema.state), 1).astype(np.float32)
    if schema.environment_state:
        state[:, -1] = np.maximum(frames, length // 2)
    action = np.stack([number, -number], 1).astype(np.float32)
    return EpisodeArrays(pixels, state, action, number.astype(np.float32), frames == length - 1, episode)


@pytest.fixture
def numbered():
    """The builder itself: (episode, length, schema) → EpisodeArrays."""
    return numbered_episode


@pytest.fixture
def schema() -> DataSchema:
    return numbered_schema()


@pytest.fixture
def store(tmp_path, schema) -> WindowStore:
    episodes = (numbered_episode(i, length, schema) for i, length in enumerate(LENGTHS))
    return write_store(tmp_path / "numbered.zarr", schema, episodes)
