"""Interleaved timing: in each round every contender takes one step, so a busy machine slows all alike."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from scd_world.model.rollout_state import RolloutState
from scd_world.model.world_model import WorldModel
from scd_world.world.compiled_step import Stepper

FEWEST = 3  # rounds
COMPILED = ", compiled"  # ends the name of a contender whose steps are compiled, on a CPU (graph.py)


def interleave(
    models: Mapping[str, WorldModel],
    standing: dict[str, RolloutState],
    num_steps: Mapping[str, int],
    seconds: float,
) -> Iterator[dict[str, tuple[float, float]]]:
    """Rounds in which each contender takes one step: seconds by the clock, and of our processors."""
    given = {name: dummy_inputs(s, len(models[name].schema.action)) for name, s in standing.items()}
    steppers = {name: Stepper(model) for name, model in models.items()}
    began, rounds = time.perf_counter(), -1
    while rounds < FEWEST or time.perf_counter() - began < seconds:
        taken = {}
        for name, model in models.items():
            compiled = name.endswith(COMPILED)
            n = num_steps[name] if rounds >= 0 or compiled or model.device.type == "cuda" else 1
            synchronise(model.device)
            clock, processor = time.perf_counter(), time.process_time()
            standing[name] = steppers[name](standing[name], *given[name], n, compiled)
            synchronise(model.device)
            taken[name] = (time.perf_counter() - clock, time.process_time() - processor)
        if rounds >= 0:  # the first round warms up
            yield taken
        rounds += 1


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_speed(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """FLOP per second of a large matrix product: what a machine has to give."""
    size = 8192 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(6):
        synchronise(device)
        began = time.perf_counter()
        a @ a
        synchronise(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def dummy_state(model: WorldModel, batch: int, full: bool = False) -> RolloutState:
    """Rows at their first frame; full: as if they had filled the window, which early steps must not spare."""
    schema, device = model.schema, model.device
    obs = torch.zeros(batch, schema.channels, schema.height, schema.width, device=device)
    s = model.initial(obs, torch.zeros(batch, len(schema.state), device=device))
    if full:
        s.cache.position += s.cache.window  # every slot now belongs to the episode
    return s


def dummy_inputs(s: RolloutState, action_size: int) -> tuple[Tensor, Tensor]:
    """An action and the noise of a frame: drawing it costs next to nothing beside a step."""
    noise = torch.randn(s.obs.shape, generator=torch.Generator().manual_seed(0))
    return torch.zeros(len(s.obs), action_size, device=s.obs.device), noise.to(s.obs.device)
