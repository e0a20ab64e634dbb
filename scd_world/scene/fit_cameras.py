"""Finds which cameras ride on the robot, how the state moves them, and how high stands what they see.

All of it from pairs of frames of an episode: seen from where the camera went, one is to be the other. Pairs
that are a few frames apart, and blurred, come first. Whoever begins with far ones finds no chain of joints,
for what is off by more than its own size does not tell where it went (docs/cameras.md 28). First all lies in
a plane, then it is learnt, too, what stands over it; but for what a camera takes along, as a gripper: of each
cell the lesser error counts, seen so or as it is (Godard and others, "Digging into self-supervised monocular
depth estimation", arXiv 1806.01260, section 3.2). Or heights would have a camera stand still, for the
gripper's sake (docs/cameras.md 41).

F frames, C channels (3 per camera), H W cells, V cameras.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scd_world.model.prior import Scene
from scd_world.optim.pretraining import PretrainStage
from scd_world.optim.schedule import lr_schedule
from scd_world.scene.cameras import LOOKS, RidingCameras, by_camera
from scd_world.scene.frames import FramesToDraw
from scd_world.scene.static_layer import Heights

POSE_UPDATES, POSE_LR = 2000, 1e-2
HEIGHT_UPDATES, HEIGHT_LR = 2000, 3e-3
NEARER = 0.8  # times the error of a frame as it is: a camera that rides
NOTHING = 2e-3  # of [-1, 1], a mean error that tells nothing
NEAREST, FARTHEST = 2, 40  # frames that a pair is apart at most, in the beginning and in the end
BLURS = (0.2, 1 / 6), (0.5, 1 / 10)  # up to what share of the updates, and over what share of an image
FLAT = 0.03  # weight of squared heights: of what looks the same everywhere none is found
# (first, apart): batches of pairs from number `first` on, without end, those of update u at most apart(u)
# frames apart.
Pairs = Callable[[int, Callable[[int], int]], Generator[FramesToDraw]]


class Sight(nn.Module):
    """What is learnt: how one frame is seen in the place of another one of its episode."""

    def __init__(self, cameras: RidingCameras, heights: Heights, background: Tensor) -> None:
        """background: (1, C, H, W)."""
        super().__init__()
        self.cameras, self.heights, self.background = cameras, heights, background

    def forward(self, some: FramesToDraw, heights: bool, blur: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """Gives the absolute error of the shown frames as they are seen from where the cameras are, (F, V, 1,
        3, H, W), what is seen of them, bool (F, V, 1, 1, H, W), and how high it stands, (F, V, H, W). blur:
        over so many cells."""
        S = some.state.shape[1]
        then, before, _ = some.shown_state.tensor_split([S, 2 * S], dim=1)
        flat = torch.zeros_like(some.shown[:, : len(self.cameras.moves)])
        height = self.heights(some.shown, self.background) if heights else flat
        scene = Scene(then[:, :0], self.cameras.poses(then, before), height, some.shown)
        shown, truth = (blurred(frames, blur)[:, None] for frames in (some.shown, some.obs))
        # What is to be found is where, not what: a mean of neighbors is less off by their grain.
        looks = LOOKS if heights else 1
        where = self.cameras.look_back(scene, some.state, some.prev[:, :S], looks)
        found, seen = self.cameras.looked_up(shown, where, "bilinear")
        return (found - by_camera(truth)).abs(), seen, height

    def loss(self, some: FramesToDraw, heights: bool, blur: int) -> Tensor:
        error, seen, height = self(some, heights, blur)
        as_is = as_it_is(some, blur)
        error = torch.where(error.mean(3, keepdim=True) <= as_is.mean(3, keepdim=True), error, as_is)
        shared = (error * seen).sum() / (3 * seen.sum()).clamp_min(1)
        return shared + FLAT * height.square().mean()


def farthest(progress: float) -> int:
    """Gives how many frames a pair is apart at most while it is learnt how the state moves cameras, of the
    progress of that in [0, 1]."""
    grown = max(0.0, (progress - 0.2) / 0.8) ** 1.5
    return round(NEAREST + grown * (FARTHEST - NEAREST))


def fit_poses(sight: Sight, frames: Pairs, steps: int, stage: PretrainStage) -> Generator[Tensor]:
    """Learns how the state moves every camera as if all of them rode; yields the loss of each update."""

    def apart(update: int) -> int:
        # Also where the time ends before the updates do. Not by the stage's progress: windows are read ahead,
        # and without a limit of time no pair shall depend on how fast.
        return farthest(min(max(update / steps, stage.elapsed / stage.seconds), 1.0))

    cameras = sight.cameras
    cameras.set_moves(torch.ones_like(cameras.moves))
    yield from fit(sight, cameras, False, lambda first: frames(first, apart), steps, POSE_LR, stage)


def fit_heights(sight: Sight, frames: Pairs, steps: int, stage: PretrainStage) -> Generator[Tensor]:
    """Learns how high stands what they see, and the cameras on; yields the loss of each update."""
    yield from fit(
        sight, sight, True, lambda first: frames(first, lambda _: FARTHEST), steps, HEIGHT_LR, stage
    )


def fit(
    sight: Sight,
    learns: nn.Module,
    heights: bool,
    frames: Callable[[int], Generator[FramesToDraw]],
    steps: int,
    lr: float,
    stage: PretrainStage,
) -> Generator[Tensor]:
    width = sight.background.shape[-1]
    optimizer = torch.optim.Adam(learns.parameters(), lr)
    stage.start(learns, [(optimizer, lr)], torch.Generator())
    with closing(frames(stage.update)) as batches:

        def loss(progress: float) -> Tensor:
            shares = (share for until, share in BLURS if not heights and progress < until)
            return sight.loss(next(batches), heights, round(width * next(shares, 0)) | 1)

        yield from stage.run(steps, lambda progress: lr_schedule(progress, 0.02, 0.5, 0.02), loss)


@torch.no_grad()
def keep_riding(
    sight: Sight, apart: Sequence[FramesToDraw], agreed: Callable[[Tensor], Tensor] = lambda ratio: ratio
) -> Tensor:
    """Has a camera ride where, of frames set `apart`, one is nearer to the other so than as it is, in most of
    the image: an arm that moves before a camera that stands is seen in some of it alone. Gives by how much,
    (V,): the median over cells of the ratio of the mean absolute errors. agreed: what several processes that
    learned for themselves take for it."""
    errors = torch.zeros(2, *sight.background.shape[-2:]).to(sight.background)
    errors = errors.repeat(len(sight.cameras.moves), 1, 1, 1)  # (V, 2, H, W): seen so, and as it is
    for some in apart:
        error, seen, _ = sight(some, heights=False)
        both = torch.cat([error, as_it_is(some)], dim=2) * seen
        errors += both.mean(3).mean(0) / len(apart)
    warped, as_is = (errors + NOTHING).unbind(1)
    ratio = agreed((warped / as_is).flatten(1).median(1).values)
    sight.cameras.set_moves(ratio < NEARER)
    return ratio


def as_it_is(some: FramesToDraw, blur: int = 1) -> Tensor:
    """Gives the absolute error of the shown frames as they are, (F, V, 1, 3, H, W). blur: over so many
    cells."""
    shown, truth = (blurred(frames, blur)[:, None] for frames in (some.shown, some.obs))
    return by_camera((shown - truth).abs())


def blurred(frames: Tensor, cells: int) -> Tensor:
    """Averages (F, C, H, W) over squares of an odd number of cells, edges repeated."""
    around = F.pad(frames, [cells // 2] * 4, mode="replicate")
    return F.avg_pool2d(around, cells, stride=1) if cells > 1 else frames
