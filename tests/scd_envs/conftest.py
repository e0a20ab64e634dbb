"""Tiny worlds with random weights: every weight is filled, so that nothing passes because a gate is zero."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from scd_world.model.config import ModelConfig
from scd_world.prior.config import PriorConfig
from scd_world.robot_data.normalizer import Normalizer
from scd_world.robot_data.schema import DataSchema
from scd_world.world.starts import StartStates
from scd_world.world.world import World
from tests.conftest import PRIOR, make_model

TINY = ModelConfig(width=32, heads=2, encoder_layers=2, decoder_layers=1, patch=8, window=4, num_steps=2)
LENGTHS = {3: 12, 5: 6, 8: 9}  # frames of each stored episode


def tiny_schema(**changes) -> DataSchema:
    values = {
        "cameras": ("top",),
        "height": 16,
        "width": 24,
        "agent_pos": ("x", "y"),
        "environment_state": ("block",),
        "action": ("dx", "dy"),
        "action_low": (-1.0, -1.0),
        "action_high": (1.0, 1.0),
        "fps": 10,
        "tasks": ("push the block",),
        "reward": True,
        "success": True,
        "horizon": 20,
    }
    return DataSchema(**(values | changes))


def make_world(prior: PriorConfig = PRIOR, config: ModelConfig = TINY, **changes) -> World:
    """A world of `tiny_schema(**changes)` and this prior; the same weights at every call."""
    schema, rng = tiny_schema(**changes), np.random.default_rng(0)
    stats = replace(
        Normalizer.neutral(schema),
        action_low=torch.tensor(schema.action_low),
        action_high=torch.tensor(schema.action_high),
        reward_mean=torch.tensor(0.5),
        reward_std=torch.tensor(0.3),
    )
    model = make_model(config, schema, stats, prior).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if name.startswith("prior.uncertainty."):
            continue  # a curve rises
        weight.copy_(torch.randn(weight.shape, generator=generator) * 0.8 / weight.shape[-1] ** 0.5)
    # At full size these are chaos when unrolled, and rounding would show.
    for name, weight in model.named_parameters():
        if name.startswith(("prior.dynamics.", "core.decoder.pixel_head.")):
            weight.mul_(0.3)
    for weight in model.core.heads.parameters():  # outcomes that differ visibly from step to step
        weight.mul_(4)
    addresses = np.array([(episode, frame) for episode, length in LENGTHS.items() for frame in range(length)])
    F = len(addresses)
    starts = StartStates(
        pixels=rng.integers(0, 256, (F, len(schema.cameras), schema.height, schema.width, 3), np.uint8),
        state=rng.uniform(-1, 1, (F, len(schema.state))).astype(np.float32),
        action=rng.uniform(-1, 1, (F, len(schema.action))).astype(np.float32),
        addresses=addresses,
        task=(addresses[:, 0] == 8).astype(np.int64) if len(schema.tasks) > 1 else np.zeros(0, np.int64),
    )
    world = World(model, stats, starts)
    make_success_rare(world)
    return world


def make_success_rare(world: World, part: float = 0.07, probability: float = 0.93) -> None:
    """Random weights may call every step a success, or none: now about `part` of them exceed it."""
    generator = torch.Generator().manual_seed(0)
    s = world.reset([world.starts.get(episode, 0) for episode in LENGTHS])
    logits = []
    for _ in range(12):
        action = torch.rand(len(LENGTHS), len(world.schema.action), generator=generator) * 2 - 1
        s = world.step(s, action, torch.randn(len(LENGTHS), *world.frame_shape, generator=generator))
        logits.append(torch.logit(s.success, eps=1e-6))
    bias = world.model.core.heads.mlp[-1].bias  # its last number is the success's
    bias[-1] += torch.logit(torch.tensor(probability)) - torch.quantile(torch.stack(logits), 1 - part)


@pytest.fixture(scope="session")
def build_world() -> Callable[..., World]:
    return make_world


@pytest.fixture(scope="session")
def world() -> World:
    return make_world()


@pytest.fixture(scope="session")
def folder(world, tmp_path_factory):
    """The same world on disk."""
    return world.save(tmp_path_factory.mktemp("runs") / "world")


@pytest.fixture(scope="session")
def actions() -> np.ndarray:
    """(30 steps, 6 rows, 2) actions inside the recorded range."""
    return np.random.default_rng(7).uniform(-1, 1, (30, 6, 2)).astype(np.float32)
