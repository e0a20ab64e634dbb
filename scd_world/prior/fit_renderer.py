"""Trains the renderer (`renderer.py`) from single recorded frames and their states, before the rest learns.

A frame by itself is cheap to learn from: no history, no noise, no rollout. And most of it is background:
half of the cells that an update looks at are drawn from where something stands out, and weigh less for it.
Where a scene representation is learnt as well, each frame comes with another one of its episode, off which it
is read. An average of the weights is left, which knows less by heart than the last ones, and is held.

F frames, C channels (3 per camera), H W pixels, P cells of the image, n of them looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing

import torch
import torch.nn.functional as F
from torch import Tensor

from scd_world.optim.pretraining import PretrainStage
from scd_world.optim.schedule import lr_schedule
from scd_world.prior.config import RendererPretrainConfig
from scd_world.prior.renderer import StateRenderer
from scd_world.scene.frames import FramesToDraw

DIFFERS = 0.1  # of 2, the range of a color
WARM_UP = 50  # updates
# The pose residual is hundreds of weights that AdamW moves all at once: at the others' rate it throws the
# parts about, gradients grow a thousandfold, and nothing is drawn any more (four of four renderers of an arm
# within 400 updates, docs/arm.md). A gradient many times the usual one is cut to that.
POSE_LR_RATIO = 0.2  # of the learning rate
CLIP = 0.1
SCENE_LR_RATIO = 0.2  # of the same
SCENE_NOISE = 0.1  # deviation, of (-1, 1): scenes that differ by less are drawn alike
AVERAGE = 0.999  # decay of the average of the weights


def fit_renderer(
    renderer: StateRenderer,
    frames: Callable[[int], Generator[FramesToDraw]],
    seed: int,
    config: RendererPretrainConfig,
    bf16: bool,
    stage: PretrainStage | None = None,
) -> Generator[Tensor]:
    """Trains `renderer` in place, but for its cameras and how high stands what they see, and for what finds
    again what was shown, which are held; yields the loss of each update.

    frames(first): batches from number `first` on, without end, on the renderer's device.
    """
    for part in (renderer.cameras, renderer.heights, renderer.motion):
        if part is not None:
            part.requires_grad_(False)
    device, generator = renderer.background_cells.device, torch.Generator().manual_seed(seed)
    stage, steps = stage or PretrainStage(), config.steps
    slower = [
        ([*renderer.pose_residual.parameters(), *renderer.fourier.parameters()], POSE_LR_RATIO),
        ([p for part in renderer.of_scenes for p in part.parameters()], SCENE_LR_RATIO),
    ]
    named = {id(p) for part, _ in slower for p in part}
    others = [p for p in renderer.parameters() if id(p) not in named and p.requires_grad]
    optimizers = [
        (torch.optim.AdamW(part, weight_decay=config.weight_decay, fused=True), rate * config.lr)
        for part, rate in ((others, 1.0), *slower)
        if part
    ]
    stage.start(renderer, optimizers, generator, AVERAGE, CLIP)
    with closing(frames(stage.update)) as batches:

        def loss(progress: float) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                return renderer_loss(renderer, next(batches), config, generator)

        def rates(progress: float) -> float:
            """Counted in updates, the warm-up is as long whether or not time ends the stage sooner."""
            return min(1.0, (stage.update + 1) / WARM_UP) * lr_schedule(progress, 0.0, 0.5, 0.02)

        yield from stage.run(steps, rates, loss)


def renderer_loss(
    renderer: StateRenderer, frames: FramesToDraw, config: RendererPretrainConfig, generator: torch.Generator
) -> Tensor:
    """Mean square error of frames, from a share `cell_share` of their cells; a pixel that differs from the
    background weighs `foreground_weight` more."""
    obs = frames.obs
    scene = renderer.scene(frames.shown, frames.shown_state)
    noise = torch.randn(scene.features.shape, generator=generator).to(scene.features)
    given = renderer.inputs(frames.state, frames.prev, scene.features + SCENE_NOISE * noise)
    truth = renderer.to_cells(obs)
    differs = (truth - renderer.background_cells).abs().amax(3, keepdim=True) > DIFFERS  # (F, P, V, 1, CELL²)
    chance = cell_probabilities(differs.any(4).any(2)[..., 0], renderer.grid_size)
    count = max(1, round(config.cell_share * chance.shape[1]))
    chosen = torch.multinomial(chance.cpu(), count, replacement=True, generator=generator).to(obs.device)
    row = torch.arange(len(obs), device=obs.device)[:, None]
    behind = renderer.behind(frames.state, frames.prev, scene).expand(len(obs), -1, -1, -1, -1)[row, chosen]
    drawn = renderer.render_cells(given, renderer.cell_grid[:, chosen].movedim(1, 0), behind)
    error = (1 + config.foreground_weight * differs[row, chosen]) * (drawn - truth[row, chosen]).square()
    often = chance.shape[1] * chance[row, chosen]  # how often a cell is looked at, of once
    return (error.mean((2, 3, 4)) / often).mean()


def cell_probabilities(differs: Tensor, grid_size: tuple[int, int]) -> Tensor:
    """(F, P), adding up to 1: half of it evenly, half where something differs (F, P) or a neighbor does."""
    seen = differs.view(-1, 1, *grid_size).float()
    near = F.max_pool2d(seen, 3, stride=1, padding=1).flatten(1)
    evenly = torch.full_like(near, 1 / near.shape[1])
    near = torch.where(near.any(1, keepdim=True), near, 1.0)
    return 0.5 * evenly + 0.5 * near / near.sum(1, keepdim=True)
