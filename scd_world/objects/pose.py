"""Where a sprite is in a frame.

What a pose *explains* is the squared error that drawing the sprite there takes away, each pixel's bounded, so
that what else is in the image (a hand before it) weighs little. A few damped Gauss–Newton steps find the pose
nearby that explains most (Lucas & Kanade, 1981; Baker & Matthews, "Lucas-Kanade 20 Years On", 2004), to a few
hundredths of a pixel on clean images; where nobody knows where to begin, every place and turn is tried.

F frames, H W pixels, K side of a crop, A turns, M candidates.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from scd_world.objects.scenes import Crops, Scenes, crops
from scd_world.objects.sprite import Sprite, in_own_frame, sample, with_slopes

CAP = 0.25  # bound of a pixel's squared error, of 4: beyond, it is something else
FORGIVEN = 0.02  # of it: what a pixel may lose where the robot may be in front
FITS = 0.06  # squared error of a pixel that looks as it should
FIRST_DAMPING = 1e-2  # of each number's own curvature
FARTHEST = 2.0  # px or radians of a step
ANGLES = 24  # turns that are tried
CANDIDATES = 5  # of them, whose best places are looked at closely
COARSE = 5.0  # px: the radius at which a sprite is sought


def bounded_gain(cut: Crops, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Gives how much of each pixel's squared error is gone, (F, 1, K, K), and where the drawing counts.

    Where the robot may be in front, either may be: there hardly anything is lost.
    """
    before = (cut.frames - cut.expected).square().mean(1, keepdim=True)
    after = (cut.frames - drawn).square().mean(1, keepdim=True)
    in_front = cut.robot & (before + FORGIVEN < after)
    counts = cut.inside & (after < CAP) & ~in_front
    after = torch.where(in_front, before + FORGIVEN, after)
    return (before.clamp_max(CAP) - after.clamp_max(CAP)) * cut.inside, counts


def fits(sprite: Sprite, scenes: Scenes, pose: Tensor) -> Tensor:
    """Gives the share (F,) of what the object covers at each pose (F, 3) that looks as it should."""
    cut = crops(scenes, pose[:, :2], sprite.half)
    color, cover = sample(sprite.image, in_own_frame(pose, cut.at), sprite.radius).split([3, 1], 1)
    error = (cut.frames - color - (1 - cover) * cut.expected).square().mean(1, keepdim=True)
    right = (cover * ((error < FITS) & cut.inside)).sum((1, 2, 3))
    return right / cover.sum((1, 2, 3)).clamp_min(1e-6)


def refine(sprite: Sprite, scenes: Scenes, pose: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Moves poses (F, 3) to where they explain more; gives them and what they explain, (F,).

    Levenberg–Marquardt on the pixels that count, on crops about the places where it began.
    """
    cut = crops(scenes, pose[:, :2], sprite.half + 2)
    layers, free, trial = with_slopes(sprite), sprite.free, pose
    best = torch.full_like(pose[:, 0], -torch.inf)
    damping = torch.full_like(best, FIRST_DAMPING)
    gram, slope = pose.new_zeros(len(pose), free, free), pose.new_zeros(len(pose), free, 1)
    for step in range(steps + 1):
        own = in_own_frame(trial, cut.at)
        value, du, dv = sample(layers, own, sprite.radius).split(4, 1)
        drawn = value[:, :3] + (1 - value[:, 3:]) * cut.expected
        gain, counts = bounded_gain(cut, drawn)
        gain = gain.sum((1, 2, 3))
        better = gain > best
        pose, best = torch.where(better[:, None], trial, pose), torch.where(better, gain, best)
        if step == steps:
            break
        cos, sin = trial[:, 2, None, None, None].cos(), trial[:, 2, None, None, None].sin()
        by_pose = [sin * dv - cos * du, -sin * du - cos * dv, own[:, 1:] * du - own[:, :1] * dv][:free]
        jacobian = torch.stack([d[:, :3] - d[:, 3:] * cut.expected for d in by_pose], -1)
        jacobian = (jacobian * counts[..., None]).flatten(1, 3)
        taken = better[:, None, None]
        gram = torch.where(taken, jacobian.mT @ jacobian, gram)
        slope = torch.where(taken, jacobian.mT @ (cut.frames - drawn).flatten(1)[..., None], slope)
        damping = damping * torch.where(better, 0.3, 6.0)
        heavy = gram + torch.diag_embed(damping[:, None] * gram.diagonal(dim1=1, dim2=2) + 1e-4)
        change = torch.linalg.solve_ex(heavy, slope).result[..., 0].clamp(-FARTHEST, FARTHEST)
        trial = torch.cat([pose[:, :free] + change, pose[:, free:]], 1)
    return pose, best


# ---- from nothing nearby -------------------------------------------------------------------------------


def search(sprite: Sprite, scenes: Scenes, candidates: int = CANDIDATES) -> tuple[Tensor, Tensor]:
    """Finds the pose that explains most wherever it is: every place and turn at low resolution, the best of
    them closely. Gives poses (F, 3) and what they explain, (F,)."""
    rough = coarse_search(sprite, scenes, candidates)  # (F, M, 3)
    count, most = rough.shape[:2]
    rows = torch.arange(count, device=rough.device).repeat_interleave(most)
    pose, gain = refine(sprite, scenes.rows(rows), rough.flatten(0, 1), 6)
    gain = gain.unflatten(0, (count, most))
    best = gain.argmax(1)
    pose = pose.unflatten(0, (count, most))[torch.arange(count, device=pose.device), best]
    return refine(sprite, scenes, pose, 5)


def coarse_search(sprite: Sprite, scenes: Scenes, candidates: int) -> Tensor:
    """Gives, of each frame, the places and turns (F, M, 3) that explain most without a bound.

    With d the frame less what is expected, B, that is Σ 2 d·(c − a B) − |c − a B|²: a few correlations.
    """
    H, W = scenes.frames.shape[-2:]
    factor = max(1, min(4, int(sprite.radius / COARSE)))
    while H % factor or W % factor:
        factor -= 1
    small = scenes.smaller(factor)
    kernels, turn = turned(sprite, factor)
    seen = (~small.robot).float()
    behind = small.expected * seen
    difference = (small.frames - small.expected) * seen
    size = kernels.shape[-1]
    color, cover = kernels.split([3, 1], 1)
    parts = [
        (difference, 2 * color),
        ((difference * behind).sum(1, keepdim=True), -2 * cover),
        (behind, 2 * cover * color),
        (behind.square().sum(1, keepdim=True), -cover.square()),
        (seen, -color.square().sum(1, keepdim=True)),
    ]
    maps = torch.cat([values.expand(len(scenes), -1, -1, -1) for values, _ in parts], 1)
    gain = F.conv2d(maps, torch.cat([weights for _, weights in parts], 1), padding=size // 2)  # (F, A, h, w)
    h, w = gain.shape[-2:]
    value, place = gain.flatten(2).max(-1)  # of each turn
    if sprite.turns:
        most = min(candidates, value.shape[1])
        which = value.topk(most, 1).indices
        place = place.gather(1, which)
        angle = turn[which]
    else:
        most = min(candidates, h * w)
        local = F.max_pool2d(gain, 3, 1, 1)
        place = gain.masked_fill(gain < local, -torch.inf).flatten(1).topk(most, 1).indices
        angle = torch.zeros_like(place, dtype=gain.dtype)
    middle = size / 2 - size // 2  # of a kernel, from the pixel that it is put at
    row, column = ((i + middle) * factor for i in (place // w, place % w))
    return torch.stack([row, column, angle], -1)


def turned(sprite: Sprite, factor: int) -> tuple[Tensor, Tensor]:
    """Draws it small, at each of the turns (A,): (A, 4, k, k), k even."""
    device = sprite.image.device
    turn = torch.arange(ANGLES if sprite.turns else 1, device=device) * (2 * math.pi / ANGLES)
    size = 2 * math.ceil(sprite.radius / factor)
    steps = torch.arange(size * factor, device=device) + 0.5
    at = torch.stack(torch.meshgrid(steps, steps, indexing="ij"))[None].expand(len(turn), -1, -1, -1)
    middle = torch.full((len(turn), 2), size * factor / 2, device=device)
    own = in_own_frame(torch.cat([middle, turn[:, None]], 1), at)
    return F.avg_pool2d(sample(sprite.image, own, sprite.radius), factor), turn
