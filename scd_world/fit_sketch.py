"""Teaches the sketch (`sketch.py`) from single recorded frames and their states, before the rest learns.

A frame by itself is a cheap lesson: no history, no noise, no rollout. What it has learnt then is held.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

import torch
from torch import Tensor

from scd_datasets.loader import WindowLoader, prefetch
from scd_world.clip import Clip
from scd_world.config import SketchConfig
from scd_world.optimiser import course
from scd_world.sketch import Sketch
from scd_world.stats import Stats


def fit_sketch(
    sketch: Sketch, loader: WindowLoader, stats: Stats, config: SketchConfig, bf16: bool
) -> Generator[Tensor]:
    """Teaches `sketch` in place; yields the loss of each update. The loader's windows are of one step."""
    optimiser = torch.optim.AdamW(sketch.parameters(), weight_decay=0.0, fused=True)
    device = sketch.background.device
    with closing(prefetch(loader, 0)) as batches:
        for update in range(config.steps):
            progress = (update + 1) / config.steps
            optimiser.param_groups[0]["lr"] = config.lr * course(progress, 50 / config.steps, 0.5, 0.02)
            windows = {name: value.to(device) for name, value in next(batches).items()}
            clip = Clip.from_windows(windows, stats)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = sketch_loss(sketch, clip.state[:, 0], clip.obs[:, 0], config.foreground)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(sketch.parameters(), 1.0)
            optimiser.step()
            yield loss.detach()


def sketch_loss(sketch: Sketch, state: Tensor, obs: Tensor, foreground: float) -> Tensor:
    """Mean square error, a pixel that differs from the background weighing `foreground` more."""
    differs = (obs - sketch.background).abs().amax(1, keepdim=True) > 0.1
    return ((1 + foreground * differs) * (sketch(state) - obs).square()).mean()
