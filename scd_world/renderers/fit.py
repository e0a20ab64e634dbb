"""Trains a renderer from single recorded frames and their states, before the rest learns.

A frame by itself is cheap to learn from: no history, no noise, no rollout. What has been learnt then is held.

F frames, C channels (3 per camera), H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing

import torch
from torch import Tensor

from scd_world.optim.pretraining import PretrainStage
from scd_world.optim.schedule import lr_schedule
from scd_world.renderers.config import RendererPretrainConfig
from scd_world.renderers.renderer import Renderer

WARM_UP = 50  # updates
SLOW_LR_RATIO = 0.2  # of the learning rate
CLIP = 0.1  # a gradient many times the usual one is cut to that


def fit_renderer(
    renderer: Renderer,
    frames: Callable[[int], Generator[tuple[Tensor, Tensor]]],
    seed: int,
    config: RendererPretrainConfig,
    bf16: bool,
    stage: PretrainStage | None = None,
) -> Generator[Tensor]:
    """Trains `renderer` in place; yields the loss of each update.

    frames(first): batches of states (F, S) and their frames (F, C, H, W) from number `first` on, without end,
    on the renderer's device.
    """
    device, generator = renderer.background.device, torch.Generator().manual_seed(seed)
    stage, steps = stage or PretrainStage(), config.steps
    slow, rate = renderer.slow_parameters(), renderer.lr_ratio * config.lr
    others = [p for p in renderer.parameters() if all(p is not other for other in slow)]
    optimizers = [
        (torch.optim.AdamW(part, weight_decay=0.0, fused=True), ratio * rate)
        for part, ratio in ((others, 1.0), (slow, SLOW_LR_RATIO))
        if part
    ]
    stage.start(renderer, optimizers, generator, clip=CLIP)
    with closing(frames(stage.update)) as batches:

        def loss(progress: float) -> Tensor:
            state, obs = next(batches)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                return renderer.loss(state, obs, config, generator)

        def rates(progress: float) -> float:
            """Counted in updates, the warm-up is as long whether or not time ends the stage sooner."""
            return min(1.0, (stage.update + 1) / WARM_UP) * lr_schedule(progress, 0.0, 0.5, 0.02)

        yield from stage.run(steps, rates, loss)
