"""What a step costs, counted: passes through the blocks, floating-point operations, bytes.

Counted on torch's meta device, where shapes alone are computed: a count takes milliseconds however large the
model, does not depend on the machine, and sees attention inside fused kernels too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from scd_world.benchmark.timing import dummy_inputs, dummy_state
from scd_world.codec.codec import Codec
from scd_world.model.layers import Block
from scd_world.model.rollout_state import RolloutState
from scd_world.model.world_model import WorldModel


@dataclass(frozen=True)
class StepCost:
    """The cost of one step of all rows together."""

    flops: int
    block_passes: int  # runs of transformer blocks
    cache_bytes: int


def count_cost(model: WorldModel, batch: int, num_steps: int) -> StepCost:
    """Counts a step of `batch` rows in so many denoising steps.

    Denoising steps after the first all cost the same, so one and two of them are counted.
    """
    one, more = count_step(model, batch, 1), num_steps - 1
    if not more:
        return one
    two = count_step(model, batch, 2)
    return StepCost(
        one.flops + more * (two.flops - one.flops),
        one.block_passes + more * (two.block_passes - one.block_passes),
        one.cache_bytes,
    )


def count_step(model: WorldModel, batch: int, num_steps: int) -> StepCost:
    """Counts a step by taking it on the meta device."""
    shapes = shapes_of(model)
    s = dummy_state(shapes, batch)
    action, noise = dummy_inputs(s, len(model.schema.action))
    with count_blocks(shapes) as passes, FlopCounterMode(display=False) as counter:
        s = shapes.imagine(s, action, noise, num_steps)
    return StepCost(counter.get_total_flops(), passes[0], s.cache.nbytes)


def count_decoding(codec: Codec, batch: int) -> int:
    """Counts the floating-point operations that make images of `batch` imagined frames."""
    schema = codec.model_schema
    frames = torch.empty(batch, schema.channels, schema.height, schema.width, device="meta")
    with FlopCounterMode(display=False) as counter:
        deepcopy(codec).to("meta").decode(frames)
    return counter.get_total_flops()


def shapes_of(model: WorldModel) -> WorldModel:
    """Copies a model without its weights: its tensors have shapes alone."""
    empty = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in model.parameters()}
    return deepcopy(model, empty).to("meta")


@contextmanager
def count_blocks(model: WorldModel) -> Iterator[list[int]]:
    """Counts, while it is open, every run of a transformer block in the one number of the list."""
    passes = [0]

    def count(*_: object) -> None:
        passes[0] += 1

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, Block)]
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()


def peak_bytes(
    model: WorldModel, s: RolloutState, action: Tensor, noise: Tensor, num_steps: int, codec: Codec
) -> int:
    """Measures the most memory that weights, cache and the intermediate values of one step and its image take
    together."""
    device = s.obs.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        codec.decode_pixels(model.imagine(s, action, noise, num_steps).obs)
        return torch.cuda.max_memory_allocated(device)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it complains where there is no GPU
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        codec.decode_pixels(model.imagine(s, action, noise, num_steps).obs)
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak + s.cache.nbytes + sum(p.nbytes for m in (model, codec) for p in m.parameters())
