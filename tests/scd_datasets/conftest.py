"""A small store and an environment to record, in which every value shows where it belongs."""

import shutil
from pathlib import Path
from typing import ClassVar

import gymnasium
import numpy as np
import pytest

from scd_datasets.store.arrays import EpisodeArrays
from scd_datasets.store.store import WindowStore
from scd_datasets.store.writer import write_store
from scd_world.robot_data.schema import DataSchema
from scd_world.rollouts.config import RecordConfig
from scd_world.rollouts.record import record

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


class Counting(gymnasium.Env):
    """Frame i of an episode with seed s shows the gray levels (s, i, camera); success at frame 7.

    `at_step(n)` is called before the n-th step of an environment: tests interrupt there.
    """

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 10}
    at_step = staticmethod(lambda n: None)

    def __init__(self):
        self.total, self.render_mode = 0, "rgb_array"
        camera = gymnasium.spaces.Box(0, 255, (64, 72, 3), np.uint8)
        vector = gymnasium.spaces.Box(-1e6, 1e6, (2,), np.float32)
        self.observation_space = gymnasium.spaces.Dict(
            pixels=gymnasium.spaces.Dict(top=camera, wrist=camera), agent_pos=vector, environment_state=vector
        )
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.frame = seed, 0
        return self._observe(), {"is_success": False}

    def step(self, action):
        self.total += 1
        self.at_step(self.total)
        self.frame += 1
        done = self.frame == 7
        return self._observe(), float(self.frame), done, False, {"is_success": done}

    def _observe(self):
        shape = self.observation_space["pixels"]["top"].shape
        cameras = {
            name: np.broadcast_to(np.array([self.seed, self.frame, camera], np.uint8), shape).copy()
            for camera, name in enumerate(("top", "wrist"))
        }
        number = np.array([self.seed, self.frame], np.float32)
        return {"pixels": cameras, "agent_pos": number, "environment_state": -number}


gymnasium.register("scd_tests/Counting-v0", Counting, disable_env_checker=True)


@pytest.fixture
def at_step(monkeypatch):
    """Have the environment call this before every step."""
    return lambda hook: monkeypatch.setattr(Counting, "at_step", staticmethod(hook))


@pytest.fixture
def config(tmp_path):
    """A recording of three episodes of seven steps."""

    def make(out="counting", **changes) -> RecordConfig:
        values = {
            "env": "scd_tests/Counting-v0",
            "out": str(tmp_path / out),
            "episodes": 3,
            "publish_every": 3,
        }
        return RecordConfig(**(values | changes))

    return make


@pytest.fixture(scope="session")
def recorded_once(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("recorded") / "counting"
    record(RecordConfig("scd_tests/Counting-v0", str(out), episodes=3, publish_every=3))
    return out


@pytest.fixture
def recorded(recorded_once, tmp_path) -> Path:
    """A fresh copy of the recording, to be damaged."""
    return Path(shutil.copytree(recorded_once, tmp_path / "copy"))
