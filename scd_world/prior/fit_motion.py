"""Trains dense motion (`scene/dense_motion.py`) from pairs of frames of an episode, once the renderer is
learned, which is held.

What comes of the earlier frame and of the drawings is to be the later one. Each pair counts by the logarithm
of its square error, as dB have it, or the farthest, which are never near, would settle what is done to all.
What is moved is to be as near as it can be by itself, and what is added to it mends the rest, and is to have
as much texture: the nearest of all is soft wherever nobody can know (docs/cameras.md 41). What was found
counts by itself besides, a little: where nothing is trusted yet, nothing else would tell a flow where to
lead. And how far off the result is to be expected learns by the logarithm of how far off it was, from all the
rest aside.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing

import torch
from torch import Tensor

from scd_world.metrics.image import texture_error
from scd_world.model.filter import by_camera
from scd_world.model.prior import ShownFrame
from scd_world.optim.pretraining import PretrainStage
from scd_world.optim.schedule import lr_schedule
from scd_world.prior.config import MotionPretrainConfig
from scd_world.prior.renderer import StateRenderer
from scd_world.scene.dense_motion import Moved
from scd_world.scene.frames import FramesToDraw

FOUND = 0.1  # weight of what is found
TEXTURE = 0.5  # weight of that
NEIGHBORHOOD = 4  # cells: in such a square texture may lie anywhere
GRAIN = 1e-2  # a mean difference of neighbors, of [-1, 1], below which none is better than another
NEAR = 1e-3  # a square error, of 4, below which none is better than another
UNSEEN = 1e-4  # the same where it is told how far off a frame is
DOUBT = 0.1  # weight of that
WARM_UP = 200  # updates
AVERAGE = 0.999  # decay of the average of the weights


def fit_motion(
    renderer: StateRenderer,
    frames: Callable[[int], Generator[FramesToDraw]],
    config: MotionPretrainConfig,
    bf16: bool,
    stage: PretrainStage | None = None,
) -> Generator[Tensor]:
    """Trains the renderer's dense motion in place; yields the loss of each update.

    frames(first): batches of pairs from number `first` on, without end, on the renderer's device.
    """
    assert renderer.motion is not None
    stage, learns = stage or PretrainStage(), renderer.motion.requires_grad_(True)
    optimizer = torch.optim.AdamW(learns.parameters(), weight_decay=config.weight_decay, fused=True)
    stage.start(learns, [(optimizer, config.lr)], torch.Generator(), AVERAGE)
    with closing(frames(stage.update)) as batches:

        def loss(progress: float) -> Tensor:
            some = next(batches)
            with torch.autocast(some.obs.device.type, torch.bfloat16, enabled=bf16):
                moved = move_shown(renderer, some)
            return motion_loss(moved, some.obs)

        def rates(progress: float) -> float:
            return min(1.0, (stage.update + 1) / WARM_UP) * lr_schedule(progress, 0.0, 0.5, 0.02)

        yield from stage.run(config.steps, rates, loss)


def motion_loss(moved: Moved, obs: Tensor) -> Tensor:
    """Gives the loss above, (), of what is to be frames (F, C, H, W)."""
    off = torch.stack([moved.moved, moved.mended, moved.found]) - obs
    by_itself, mended, found = (off.square().mean((2, 3, 4)) + NEAR).log().mean(1)
    texture = (texture_error(moved.mended, obs, NEIGHBORHOOD) + GRAIN).log().mean()
    with torch.no_grad():
        error = by_camera((moved.frame - obs).square())
    doubt = (moved.log_error - (error + UNSEEN).log()).square().mean()
    return by_itself + mended + TEXTURE * texture + FOUND * found + DOUBT * doubt


def move_shown(renderer: StateRenderer, some: FramesToDraw) -> Moved:
    """Gives what the shown frames come to in the place of the others; of the drawings nothing is learned."""
    with torch.no_grad():
        state, before = some.shown_state.split([S := some.state.shape[1], some.shown_state.shape[1] - S], 1)
        scene = renderer.scene(some.shown, some.shown_state)
        where = renderer.look_back(scene, some.state, some.prev[:, :S])
        drawn = renderer(some.state, some.prev, scene, where)
        shown_drawn = renderer(state, before, scene)
    there = ShownFrame(some.shown, some.shown_state, shown_drawn)
    return renderer.move_shown(drawn, some.state, some.prev, there, where)
