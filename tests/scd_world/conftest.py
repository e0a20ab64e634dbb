"""A square that slides where it is pushed: the smallest data on which a whole training makes sense."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scd_datasets.config import DataConfig
from scd_datasets.store.arrays import EpisodeArrays
from scd_datasets.store.writer import write_store
from scd_world.evaluation import evaluate
from scd_world.model.config import ModelConfig
from scd_world.objects import discover
from scd_world.optim.config import OptimizerConfig
from scd_world.prior.config import (
    DynamicsPretrainConfig,
    OutcomePretrainConfig,
    PriorTrainConfig,
    RendererPretrainConfig,
)
from scd_world.robot_data.schema import DataSchema
from scd_world.training import setup, validation
from scd_world.training.config import TrainConfig

SIZE = 16
SLIDE = DataSchema(
    cameras=("top",),
    height=SIZE,
    width=SIZE,
    agent_pos=("x",),
    environment_state=(),
    action=("push",),
    action_low=(-1.0,),
    action_high=(1.0,),
    fps=10,
    tasks=("slide",),
    reward=True,
    success=True,
    horizon=24,
)
TINY = ModelConfig(width=16, heads=2, encoder_layers=1, decoder_layers=1, patch=8, window=4, num_steps=2)


def slide_episode(index: int, length: int = 24) -> EpisodeArrays:
    rng = np.random.default_rng(index)
    action = rng.uniform(-1, 1, (length, 1)).astype(np.float32)
    x = np.zeros((length, 1), np.float32)
    for i in range(1, length):
        x[i] = np.clip(x[i - 1] + 0.5 * action[i - 1], -1, 1)
    pixels = np.full((length, 1, SIZE, SIZE, 3), 200, np.uint8)
    for i, left in enumerate(((x[:, 0] + 1) / 2 * (SIZE - 5)).round().astype(int)):
        pixels[i, 0, 5:11, left : left + 5] = (30, 60, 90)
    return EpisodeArrays(pixels, x, action, np.abs(x[:, 0]), x[:, 0] > 0.9, index)


def write_slide(path: Path, first: int) -> Path:
    write_store(path, SLIDE, (slide_episode(first + i) for i in range(8)))
    return path


@pytest.fixture(autouse=True)
def _steps_are_timed_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks here what a step takes on this machine, which each evaluation does for three seconds."""
    monkeypatch.setattr(evaluate, "SPEED_SECONDS", 0.05)


@pytest.fixture(scope="session")
def slide_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slide") / "slide.zarr", first=0)


@pytest.fixture
def other_store(tmp_path: Path) -> Path:
    return write_slide(tmp_path / "other.zarr", first=100)


@pytest.fixture
def blind_store(tmp_path: Path) -> Path:
    """Pictures and actions, and nothing else."""
    schema = replace(SLIDE, agent_pos=(), reward=False, success=False)
    episodes = (replace(e, state=e.state[:, :0]) for e in map(slide_episode, range(4)))
    write_store(tmp_path / "blind.zarr", schema, episodes)
    return tmp_path / "blind.zarr"


@pytest.fixture(scope="module")
def hasty_discovery() -> Iterator[None]:
    """Things so plain are found from fewer first guesses, by fewer updates of each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discover, "GUESSES", 3)
        patch.setattr(discover, "FIT_STEPS", 60)
        yield


@pytest.fixture
def short_filter_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter is measured on a few steps of a few windows: how well is test_fit_filter's matter."""
    monkeypatch.setattr(setup, "STEPS", 4)
    monkeypatch.setattr(setup, "FILTER_WINDOWS", 6)


@pytest.fixture
def training(
    slide_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., TrainConfig]:
    """Builds the config of a training that takes a second; changes by keyword. Held-out windows are imagined
    for four steps, a quarter of what is usual."""
    monkeypatch.setattr(validation, "HORIZONS", (1, 4))

    def build(out: str = "run", **changes: object) -> TrainConfig:
        values = {
            "data": DataConfig(kind="zarr", root=str(slide_store), holdout=0.25),
            "model": TINY,
            "optimizer": OptimizerConfig(lr=1e-3),
            "prior": PriorTrainConfig(
                layers=1,
                width=32,
                renderer_parts=4,
                dynamics=DynamicsPretrainConfig(steps=3),
                outcome=OutcomePretrainConfig(steps=3),
                renderer=RendererPretrainConfig(steps=3, batch_size=4),
            ),
            "steps": 8,
            "batch_size": 4,
            "sequence_length": 4,
            "device": "cpu",
            "precision": "fp32",
            "log_every": 2,
            "eval_every": 100,
            "eval_windows": 4,
            "checkpoint_every": 4,
            "num_start_states": 2,
        }
        return TrainConfig(out=str(tmp_path / out), **(values | changes))

    return build
