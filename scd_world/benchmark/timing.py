"""Interleaved timing: in each round every model takes one turn, so a busy machine slows all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scd_world.codec.codec import Codec
from scd_world.model.rollout_state import RolloutState
from scd_world.model.world_model import WorldModel
from scd_world.world.compiled_step import Stepper

FEWEST = 3  # rounds
COMPILED = ", compiled"  # ends the name of a model whose steps are compiled (world/compiled_step.py)


class Elapsed(NamedTuple):
    """Seconds of one turn."""

    clock: float
    processor: float  # of all threads of this process
    waiting: float  # for what the turn had to be given first; not part of `clock`


@dataclass(frozen=True)
class Turn:
    """What one model does in every round. `run` gets the round's number, −1 for the warm-up, and what
    `prepare` gave."""

    device: torch.device
    run: Callable[[int, Any], object]
    prepare: Callable[[], Any] = lambda: None


def interleave(turns: Mapping[str, Turn], seconds: float) -> Iterator[dict[str, Elapsed]]:
    """Yields rounds in which each takes its turn once, by name, until `seconds` are over; at least FEWEST.

    A first round warms up and is not yielded.
    """
    began, rounds = time.perf_counter(), -1
    while rounds < FEWEST or time.perf_counter() - began < seconds:
        taken = {}
        for name, turn in turns.items():
            asked = time.perf_counter()
            given = turn.prepare()
            synchronize(turn.device)
            clock, processor = time.perf_counter(), time.process_time()
            turn.run(rounds, given)
            synchronize(turn.device)
            taken[name] = Elapsed(time.perf_counter() - clock, time.process_time() - processor, clock - asked)
        if rounds >= 0:
            yield taken
        else:  # a first round may compile, for minutes
            began = time.perf_counter()
        rounds += 1


def interleave_steps(
    models: Mapping[str, WorldModel],
    states: Mapping[str, RolloutState],
    num_steps: Mapping[str, int],
    codecs: Mapping[str, Codec],
    seconds: float,
) -> Iterator[dict[str, Elapsed]]:
    """Yields rounds in which each model steps on from its state once, in so many denoising steps, and its
    codec makes an image of the new frame."""
    turns = {
        name: step_turn(model, states[name], num_steps[name], codecs[name], name.endswith(COMPILED))
        for name, model in models.items()
    }
    return interleave(turns, seconds)


def step_turn(
    model: WorldModel,
    s: RolloutState,
    num_steps: int,
    codec: Codec,
    compiled: bool = False,
) -> Turn:
    """Makes the turn in which a model steps on from where it stands, and its codec makes an image of that."""
    stepper, inputs = Stepper(model), dummy_inputs(s, len(model.schema.action))
    prepares = compiled or model.device.type == "cuda"  # for just that many denoising steps

    def run(round_number: int, _: Any) -> None:
        nonlocal s
        s = stepper(s, *inputs, num_steps if round_number >= 0 or prepares else 1, compiled)
        codec.decode_pixels(s.obs)

    return Turn(model.device, run)


def synchronize(device: torch.device) -> None:
    """Waits until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_speed(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Measures FLOP per second of a large matrix product: what a machine can reach."""
    size = 8192 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(6):
        synchronize(device)
        began = time.perf_counter()
        a @ a
        synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def dummy_state(model: WorldModel, batch: int, full: bool = False) -> RolloutState:
    """Gives B rows at their first frame; full: as if the window was filled, so that no step is cheaper."""
    schema, device = model.schema, model.device
    obs = torch.zeros(batch, schema.channels, schema.height, schema.width, device=device)
    s = model.initial(obs, torch.zeros(batch, len(schema.state), device=device))
    if full:
        s.cache.position += s.cache.window  # every slot now belongs to the episode
    return s


def dummy_inputs(s: RolloutState, action_size: int) -> tuple[Tensor, Tensor]:
    """Gives actions (B, A) and noise (B, C, H, W) for a step; sampling that noise is no part of its cost."""
    noise = torch.randn(s.obs.shape, generator=torch.Generator().manual_seed(0))
    return torch.zeros(len(s.obs), action_size, device=s.obs.device), noise.to(s.obs.device)
