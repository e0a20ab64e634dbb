"""A whole step at once: on a GPU one CUDA graph, recorded once and launched as a whole; on a CPU, if wanted,
compiled to code of its own (`packaged_step.py`).

A step of a small world is a thousand small kernels, and a host cannot launch them as fast as a GPU is done
with them, nor call them as fast as a CPU is. A step can be recorded because it never waits for the host:
position and validity of the memory are tensors (`kv_cache.py`). It reads and writes fixed tensors, so each
step copies in where the rows stand, and copies out where they are then: a `RolloutState` stays its owner's,
as without. Not so its cache, which is nearly all of it and changes in place anyway: the fixed one is lent to
whoever steps, and copied only when another wants it. Who steps on and on copies no cache.

B rows, A action size, C H W frame.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from scd_world.model.kv_cache import RingKVCache
from scd_world.model.rollout_state import RolloutState
from scd_world.model.world_model import WorldModel
from scd_world.world.packaged_step import CHANGED, READ, PackagedStep

log = logging.getLogger(__name__)
MANY = 8  # rows from which on several CPU threads are faster
WARM_UP = 3  # runs before the recording: what libraries allocate and choose at first must not be in it
Replay = Callable[[], None]


class Stepper:
    """`model.imagine` as the device does it soonest: by a recorded step for each batch size, on a GPU always,
    on a CPU where it is `compiled`."""

    def __init__(self, model: WorldModel) -> None:
        self.model = model
        self.graphs: dict[tuple[int, int, bool], StepGraph | PackagedStep | None] = {}

    def __call__(
        self,
        s: RolloutState,
        act: Tensor,
        noise: Tensor,
        num_steps: int | None = None,
        compiled: bool = False,
    ) -> RolloutState:
        with own_threads(s.obs.device, len(s.obs)):
            graph = self.prepare(s, num_steps, compiled)
            return self.model.imagine(s, act, noise, num_steps) if graph is None else graph(s, act, noise)

    def prepare(
        self, s: RolloutState, num_steps: int | None = None, compiled: bool = False
    ) -> StepGraph | PackagedStep | None:
        """The step for as many rows as `s` has, recorded where there is none yet; `s` stays as it is."""
        kind = s.obs.device.type
        if kind != "cuda" and not compiled:
            return None
        num_steps = num_steps or self.model.config.num_steps
        key = len(s.obs), num_steps, torch.is_autocast_enabled(kind)
        if key not in self.graphs:
            try:
                if kind == "cuda":
                    self.graphs[key] = StepGraph(self.model, s, num_steps, cuda_graph)
                else:
                    with own_threads(s.obs.device, len(s.obs)):
                        self.graphs[key] = PackagedStep(self.model, s, num_steps)
            except RuntimeError as error:  # slower, and right
                log.warning("a step is not one piece (%s): its kernels are called one by one", error)
                self.graphs[key] = None
        return self.graphs[key]


@contextmanager
def own_threads(device: torch.device, rows: int) -> Iterator[None]:
    """Steps few rows on one CPU thread, where threads sleep while they wait for one another, as `import
    scd_world` has it (OMP_WAIT_POLICY): waking them a thousand times takes longer than they save."""
    threads = torch.get_num_threads()
    sleeping = os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive"
    if device.type != "cpu" or rows >= MANY or threads == 1 or not sleeping:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class StepGraph:
    """`model.imagine` for the rows of one batch size and one number of denoising steps."""

    def __init__(
        self, model: WorldModel, s: RolloutState, num_steps: int, record: Callable[[Replay], Replay]
    ) -> None:
        """s: any B rows; they are left as they are. record: `cuda_graph`, or what stands for it."""
        self.inside = s.fork()
        self.tenant: weakref.ref[RingKVCache] | None = None  # whom the fixed cache's memory is lent to
        self.act = s.state.new_zeros(len(s.state), len(model.schema.action))
        self.noise = torch.zeros_like(s.obs)
        kind = s.obs.device.type
        half, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)

        def step() -> None:
            self.inside.cache.steps = self.inside.steps  # the host's own count, which no graph keeps
            # Weights that are cast once and kept would be kept outside of the graph.
            with torch.autocast(kind, dtype, enabled=half, cache_enabled=False):
                self.after = model.imagine(self.inside, self.act, self.noise, num_steps)

        self.replay = record(step)

    def __call__(self, s: RolloutState, act: Tensor, noise: Tensor) -> RolloutState:
        """As `imagine(s, act, noise)`: act (B, A), noise (B, C, H, W). Consumes `s` as that does."""
        s.check()
        self.lend_to(s.cache)
        copy_all([getattr(self.inside, name) for name in READ], [getattr(s, name) for name in READ])
        copy_all([self.act, self.noise], [act, noise])
        self.replay()
        s.cache.steps += 1
        found = [getattr(self.after, name) for name in CHANGED]
        own = [torch.empty_like(value) for value in found]
        copy_all(own, found)
        after: dict[str, Any] = dict(zip(CHANGED, own, strict=True))
        return replace(s, **after, steps=s.cache.steps)

    def lend_to(self, cache: RingKVCache) -> None:
        """Makes the fixed cache hold what `cache` holds, and lends it its memory. Whoever had it before, and
        is still there, gets memory of its own."""
        fixed, parts = self.inside.cache, ("keys", "values", "position", "first")
        if cache.keys is fixed.keys:
            return
        before = None if self.tenant is None else self.tenant()
        if before is not None and before.keys is fixed.keys:
            for name in parts:
                setattr(before, name, getattr(before, name).clone())
        fixed.copy_(cache)
        for name in parts:
            setattr(cache, name, getattr(fixed, name))
        self.tenant = weakref.ref(cache)


def copy_all(to: Sequence[Tensor], of: Sequence[Tensor]) -> None:
    """Copies tensors into others, those of one type together: each copy of its own is a launch."""
    for dtype in {value.dtype for value in to}:
        chosen = [i for i, value in enumerate(to) if value.dtype == dtype]
        torch._foreach_copy_([to[i] for i in chosen], [of[i] for i in chosen])


def cuda_graph(step: Replay) -> Replay:
    """Records what `step` does on the GPU; gives what does it again."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
