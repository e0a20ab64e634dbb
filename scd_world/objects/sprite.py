"""A thing that looks the same wherever it lies: its picture, drawn at a pose and fitted to frames.

A *sprite* covers what lies behind it: with its color c and its cover a (RGBA, c multiplied by a already), a
pixel in front of a background B is c + (1 − a) · B. Its pose in an image is the row and column of its middle
and its turn. What a pose *explains* is the squared error that drawing it there takes away, each pixel's
bounded, so that what else is in the image (a hand before it) weighs little. A few damped Gauss–Newton steps
find the pose nearby that explains most (Lucas & Kanade, 1981; Baker & Matthews, "Lucas-Kanade 20 Years On",
2004), to a few hundredths of a pixel on clean images.

F frames, H W pixels, K side of a crop, N side of the sprite's own picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

CAP = 0.25  # bound of a pixel's squared error, of 4: beyond, it is something else
FORGIVEN = 0.02  # of it: what a pixel may lose where the robot may be in front
FITS = 0.06  # squared error of a pixel that looks as it should
FIRST_DAMPING = 1e-2  # of each number's own curvature
FARTHEST = 2.0  # px or radians of a step
ANGLES = 24  # turns that are tried
CANDIDATES = 5  # of them, whose best places are looked at closely
COARSE = 5.0  # px: the radius at which a sprite is sought
FINER = 1.5  # pixels of a sprite's picture per pixel of the image


@dataclass(frozen=True)
class Sprite:
    """What one thing looks like to one camera."""

    image: Tensor  # (4, N, N): color in [-1, 1] times cover, cover in [0, 1]
    radius: float  # px: the picture's half side; what lies farther from its middle is not drawn
    turns: bool  # whether its turn can be told

    @property
    def half(self) -> int:
        """Half the side of the crop that holds it, px."""
        return math.ceil(self.radius) + 1

    @property
    def free(self) -> int:
        """How many numbers of a pose can be told."""
        return 3 if self.turns else 2

    def to(self, device: torch.device | str) -> Sprite:
        return replace(self, image=self.image.to(device))


@dataclass(frozen=True)
class Scenes:
    """Frames, and what is expected in each if none of the sought things were there."""

    frames: Tensor  # (F, 3, H, W) in [-1, 1]
    expected: Tensor  # (F or 1, 3, H, W): the background, and the robot where it should be
    robot: Tensor  # (F or 1, 1, H, W) bool: where the robot may be in front

    def __len__(self) -> int:
        return len(self.frames)

    def rows(self, rows: Tensor) -> Scenes:
        return Scenes(self.frames[rows], chosen(self.expected, rows), chosen(self.robot, rows))

    def smaller(self, factor: int) -> Scenes:
        """The same with sides that are so many times smaller."""
        if factor == 1:
            return self
        frames, expected = (F.avg_pool2d(x, factor) for x in (self.frames, self.expected))
        return Scenes(frames, expected, F.max_pool2d(self.robot.float(), factor) > 0.5)


def chosen(images: Tensor, rows: Tensor) -> Tensor:
    return images if len(images) == 1 else images[rows]


@dataclass(frozen=True)
class Crops:
    """The surroundings of a place in each frame, and where its pixels are."""

    frames: Tensor  # (F, 3, K, K)
    expected: Tensor  # (F, 3, K, K)
    robot: Tensor  # (F, 1, K, K) bool
    inside: Tensor  # (F, 1, K, K) bool: of the image
    at: Tensor  # (F, 2, K, K) row and column of each pixel's middle, px


def crops(scenes: Scenes, middle: Tensor, half: int) -> Crops:
    """Cuts the square of 2 · half pixels about middle (F, 2), px, out of each frame."""
    count, (H, W), device = len(middle), scenes.frames.shape[-2:], middle.device
    corner = (middle - half).round().long()
    rows, columns = (corner[:, i, None] + torch.arange(2 * half, device=device) for i in (0, 1))
    inside = ((rows >= 0) & (rows < H))[:, :, None] & ((columns >= 0) & (columns < W))[:, None]
    y, x = rows.clamp(0, H - 1)[:, :, None], columns.clamp(0, W - 1)[:, None]

    def cut(images: Tensor) -> Tensor:
        which = torch.arange(count, device=device) if len(images) > 1 else torch.zeros(1, dtype=torch.long)
        return images.movedim(1, -1)[which[:, None, None], y, x].movedim(-1, 1)

    at = torch.stack(torch.broadcast_tensors(rows[:, :, None], columns[:, None]), 1) + 0.5
    return Crops(cut(scenes.frames), cut(scenes.expected), cut(scenes.robot), inside[:, None], at)


def in_own_frame(pose: Tensor, at: Tensor) -> Tensor:
    """Where pixels at (F, 2, K, K) are on the thing at pose (F, 3): (F, 2, K, K), px from its middle."""
    y, x = (at - pose[:, :2, None, None]).unbind(1)
    cos, sin = pose[:, 2, None, None].cos(), pose[:, 2, None, None].sin()
    return torch.stack([cos * y + sin * x, cos * x - sin * y], 1)


def sample(picture: Tensor, own: Tensor, radius: float) -> Tensor:
    """What a picture (D, N, N) of half side `radius` shows at `own` (F, 2, K, K), px: (F, D, K, K), 0 outside
    of the circle that fits in."""
    where = (own.flip(1) / radius).movedim(1, -1)
    drawn = F.grid_sample(
        picture[None].expand(len(own), -1, -1, -1), where, padding_mode="border", align_corners=False
    )
    return drawn * (own.square().sum(1, keepdim=True) < radius**2)


def draw(sprite: Sprite, pose: Tensor, at: Tensor, behind: Tensor) -> Tensor:
    """Draws it at pose (F, 3) before `behind` (F, 3, K, K), whose pixels are at (F, 2, K, K)."""
    color, cover = sample(sprite.image, in_own_frame(pose, at), sprite.radius).split([3, 1], 1)
    return color + (1 - cover) * behind


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


def explained(sprite: Sprite, scenes: Scenes, pose: Tensor) -> Tensor:
    """Gives what each pose (F, 3) explains: (F,), squared error times pixels."""
    cut = crops(scenes, pose[:, :2], sprite.half)
    gain, _ = bounded_gain(cut, draw(sprite, pose, cut.at, cut.expected))
    return gain.sum((1, 2, 3))


def fits(sprite: Sprite, scenes: Scenes, pose: Tensor) -> Tensor:
    """Gives the share (F,) of what the thing covers at each pose (F, 3) that looks as it should."""
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


def with_slopes(sprite: Sprite) -> Tensor:
    """Gives its picture with its slopes along rows and columns, per px: (12, N, N)."""
    image = sprite.image
    per_px = image.shape[-1] / (2 * sprite.radius)
    padded = F.pad(image[None], (1, 1, 1, 1), mode="replicate")[0]
    along_rows = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    along_columns = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    return torch.cat([image, along_rows * (per_px / 2), along_columns * (per_px / 2)])


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
