"""Teaches the sketch (`sketch.py`) from single recorded frames and their states, before the rest learns.

A frame by itself is a cheap lesson: no history, no noise, no rollout. And most of it is background: half of
the cells that an update looks at are drawn from where something stands out, and weigh less for it. What has
been learnt then is held.

F frames, C channels (3 per camera), H W pixels, P cells of the picture, n of them looked at.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

import torch
import torch.nn.functional as F
from torch import Tensor

from scd_datasets.store.loader import WindowLoader, prefetch
from scd_world.optim.schedule import course
from scd_world.prior.config import SketchConfig
from scd_world.prior.pretraining import Lesson
from scd_world.prior.renderer import Sketch
from scd_world.robot_data.clip import Clip
from scd_world.robot_data.normalizer import Stats

DIFFERS = 0.1  # of 2, the range of a colour
WARM_UP = 50  # updates
# What bends the parts' places is hundreds of weights that AdamW moves all at once: at the others' rate it
# throws the parts about, gradients grow a thousandfold, and the sketch goes out (of an arm and its puck four
# of four within 400 updates, docs/arm.md). A gradient many times the usual one is cut to that.
BEND = 0.2  # of the learning rate
CLIP = 0.1


def fit_sketch(
    sketch: Sketch,
    loader: WindowLoader,
    stats: Stats,
    config: SketchConfig,
    bf16: bool,
    lesson: Lesson | None = None,
) -> Generator[Tensor]:
    """Teaches `sketch` in place; yields the loss of each update. The loader's windows are of one step."""
    device, generator = sketch.scene.device, torch.Generator().manual_seed(loader.seed)
    lesson, steps = lesson or Lesson(), config.steps
    bend = [*sketch.bend.parameters(), *sketch.waves.parameters()]
    others = [p for p in sketch.parameters() if all(p is not b for b in bend)]
    optimisers = [
        (torch.optim.AdamW(part, weight_decay=0.0, fused=True), rate * config.lr)
        for part, rate in ((others, 1.0), (bend, BEND))
    ]
    lesson.begin(sketch, optimisers, generator, clip=CLIP)
    with closing(prefetch(loader, lesson.update)) as batches:

        def loss(progress: float) -> Tensor:
            windows = {name: value.to(device) for name, value in next(batches).items()}
            clip = Clip.from_windows(windows, stats)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                return sketch_loss(sketch, clip.state[:, 0], clip.obs[:, 0], config, generator)

        def rates(progress: float) -> float:
            """Counted in updates, the warm-up is as long whether or not time ends the lesson sooner."""
            return min(1.0, (lesson.update + 1) / WARM_UP) * course(progress, 0.0, 0.5, 0.02)

        yield from lesson.teach(steps, rates, loss)


def sketch_loss(
    sketch: Sketch, state: Tensor, obs: Tensor, config: SketchConfig, generator: torch.Generator
) -> Tensor:
    """Mean square error of frames (F, C, H, W), from a share `cells` of their cells; a pixel that differs
    from the background weighs `foreground` more."""
    truth = sketch.to_cells(obs)
    differs = (truth - sketch.scene).abs().amax(3, keepdim=True) > DIFFERS  # (F, P, V, 1, CELL²)
    chance = cell_chances(differs.any(4).any(2)[..., 0], sketch.grid_size)
    count = max(1, round(config.cells * chance.shape[1]))
    chosen = torch.multinomial(chance.cpu(), count, replacement=True, generator=generator).to(obs.device)
    row = torch.arange(len(obs), device=obs.device)[:, None]
    drawn = sketch.draw_cells(state, sketch.grid[:, chosen].movedim(1, 0), sketch.scene[chosen])
    error = (1 + config.foreground * differs[row, chosen]) * (drawn - truth[row, chosen]).square()
    often = chance.shape[1] * chance[row, chosen]  # how often a cell is looked at, of once
    return (error.mean((2, 3, 4)) / often).mean()


def cell_chances(differs: Tensor, grid_size: tuple[int, int]) -> Tensor:
    """(F, P), adding up to 1: half of it evenly, half where something differs (F, P) or a neighbour does."""
    seen = differs.view(-1, 1, *grid_size).float()
    near = F.max_pool2d(seen, 3, stride=1, padding=1).flatten(1)
    evenly = torch.full_like(near, 1 / near.shape[1])
    near = torch.where(near.any(1, keepdim=True), near, 1.0)
    return 0.5 * evenly + 0.5 * near / near.sum(1, keepdim=True)
