"""What a step costs through Gymnasium, and what of it is not the model: Python, copies, transfers.

Beside the world stands one of the same sizes whose model copies its last frame and whose codec has the image
ready. What is left of its step is what an environment adds to a model. Rows, observations and both worlds
take turns, step by step, as in `stepping.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from scd_envs.vector_env import WorldVectorEnv
from scd_world.benchmark.timing import Turn, interleave
from scd_world.codec.codec import Codec
from scd_world.codec.config import CodecConfig
from scd_world.prior.config import PriorConfig
from scd_world.reporting.tables import table
from scd_world.robot_data.normalizer import Normalizer
from scd_world.robot_data.schema import DataSchema
from scd_world.world.build_model import build_model
from scd_world.world.world import World

OBSERVATIONS = ("numpy", "torch")
ENDLESS = {"success_threshold": 1.0, "horizon": 1_000_000_000}
PLAIN: dict[str, Any] = {
    "warp": False,
    "anchor_frame": False,
    "anchor_attention": False,
    "state_filter": False,
    "skip_connection": False,
}  # a head that mixes nothing
CELL = 2  # pixels, high and wide, of the frame that a model without work copies


class ReadyFrames(Codec):
    """Has the images of any frames ready, in memory of their real size: coding costs nothing."""

    def __init__(self, schema: DataSchema) -> None:
        super().__init__(CodecConfig(), schema)
        self.model_schema = replace(schema, height=CELL, width=CELL, recorded=(), resize="stretch")
        self.images: Tensor | None = None

    def encode(self, pixels: Tensor) -> Tensor:
        return torch.zeros(*pixels.shape[:-4], self.schema.channels, CELL, CELL, device=pixels.device)

    def decode(self, obs: Tensor, shown: Tensor | None = None, detail: Tensor | None = None) -> Tensor:
        return obs.new_zeros(*obs.shape[:-2], self.schema.height, self.schema.width)

    def decode_pixels(self, obs: Tensor, shown: Tensor | None = None, detail: Tensor | None = None) -> Tensor:
        if self.images is None or len(self.images) != len(obs):
            shape = len(obs), len(self.schema.cameras), self.schema.height, self.schema.width, 3
            self.images = torch.zeros(shape, dtype=torch.uint8, device=obs.device)
        return self.images


def without_model(world: World) -> World:
    """Gives a world of the same data, on the same device, that answers as much as `world` and computes
    nothing."""
    codec = ReadyFrames(world.schema)
    config = replace(world.config, architecture="copy_last", patch=CELL, head="patch", **PLAIN)
    small = Normalizer.neutral(codec.model_schema)
    model = build_model(config, PriorConfig(kind="none"), codec.model_schema, small)
    model = model.to(world.device).eval().requires_grad_(False)
    return World(model, world.stats, world.starts, codec=codec)


def compare_environments(
    world: World, rows: Sequence[int], num_steps: Sequence[int], precision: str, seconds: float
) -> Iterator[dict[str, Any]]:
    """Yields one row per number of rows, denoising steps and kind of observation: milliseconds per step.

    seconds: of each number of rows and denoising steps.
    """
    idle = without_model(world)
    for count, n in product(rows, num_steps):
        settings: dict[str, Any] = {"num_envs": count, "num_steps": n, **ENDLESS}
        with ExitStack() as stack:
            envs: dict[tuple[str, bool], VectorEnv] = {}
            for kind in OBSERVATIONS:
                whole = WorldVectorEnv(world, observations=kind, precision=precision, **settings)
                rest = WorldVectorEnv(idle, observations=kind, **settings)
                envs[kind, True], envs[kind, False] = (
                    stack.enter_context(closing(env)) for env in (whole, rest)
                )
            ms = time_steps(envs, world.device, seconds)
        for kind in OBSERVATIONS:
            yield {
                "rows": count,
                "num_steps": n,
                "observations": kind,
                "precision": precision,
                "ms": ms[kind, True],
                "steps_per_s": count / ms[kind, True] * 1e3,
                "without_model_ms": ms[kind, False],
            }


def time_steps(
    envs: Mapping[tuple[str, bool], VectorEnv], device: torch.device, seconds: float
) -> dict[tuple[str, bool], float]:
    """Gives the median milliseconds of a step of each, in turn; all rows send the middle of the range."""
    turns = {str(key): step_turn(env, device) for key, env in envs.items()}
    rounds = list(interleave(turns, seconds))
    return {key: float(np.median([r[str(key)].clock for r in rounds]) * 1e3) for key in envs}


def step_turn(env: VectorEnv, device: torch.device) -> Turn:
    """Makes the turn in which an environment takes one step."""
    space: Any = env.single_action_space
    action = np.tile((space.low + space.high) / 2, (env.num_envs, 1))
    env.reset(seed=0)
    return Turn(device, lambda round_number, given: env.step(action))


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Tabulates the rows of `compare_environments`."""
    head = ["rows", "steps", "observations", "ms", "steps/s", "without the model, ms"]
    lines = [
        [
            str(r["rows"]),
            str(r["num_steps"]),
            r["observations"],
            f"{r['ms']:.2f}",
            f"{r['steps_per_s']:,.0f}",
            f"{r['without_model_ms']:.2f}",
        ]
        for r in rows
    ]
    note = (
        f"Steps through Gymnasium, {rows[0]['precision']}, in turn, medians over rounds. Without the model: "
        "a world of the same sizes whose model copies its last frame: Python, copies and transfers are left."
    )
    return f"{table(head, lines)}\n\n{note}"
