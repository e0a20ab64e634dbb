"""Finds what objects there are in a camera's frames besides the robot, and what they look like.

A first guess is cut out of one frame: a piece that nothing explains. It is sought in the other frames, and
its picture fitted to all the places where it was found; then it is sought again, with the better picture
(an alternation as in "Transformation-Invariant Clustering and Dimensionality Reduction Using EM", Frey &
Jojic, 2000, with the poses found by search). Of several first guesses the one that explains most stays.
What it explains is then expected, and the next object is sought.

F frames, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scd_world.objects.pose import CAP, bounded_gain, fits, refine, search
from scd_world.objects.scenes import Scenes, crops
from scd_world.objects.sprite import FINER, Sprite, draw, in_own_frame, sample

STANDS_OUT = 0.15  # of 2, the range of a color
SMALLEST = 12  # pixels of a piece
LARGEST = 0.3  # of the image's shorter side: half a piece's
GUESSES, TRIED = 6, 160  # first guesses; frames in which each is sought
ROUNDS = 2  # of searching anew
FIT_STEPS, FIT_BATCH, FIT_RATE = 160, 48, 2e-2
WORTH = 0.2  # share of what stands out that an object has to explain
LEAST = 4 * CAP  # of a usual frame: four pixels
ROBOTS = 0.6  # share of the variance of its place that how the robot stands tells, where it is the robot's
RIGID = 0.7  # share of an object that usually looks as it should; of a part of an arm, less
LOOKED_PAST = 3  # parts of the robot, and what is not rigid
TURN_GAIN = 1.04  # by how much more a turning sprite has to explain to be taken for one


@dataclass(frozen=True)
class Found:
    """One object, and how well it is known."""

    sprite: Sprite
    pose: Tensor  # (F, 3) in the frames that it was learnt from
    share: float  # of what stood out before
    looks_right: float  # median share of it that looks as it should
    told: float  # share of the variance of its place that follows from how the robot stands

    @property
    def counts(self) -> bool:
        """Says whether it is a rigid object, and not the robot's."""
        return self.looks_right > RIGID and self.told < ROBOTS


@torch.no_grad()
def discover(scenes: Scenes, most: int, seed: int, told: Callable[[Tensor], float]) -> list[Found]:
    """Finds up to `most` objects in frames that are spread over the recording, the robot's parts aside.

    told: how much of the variance of places (F, 2) follows from how the robot stands, at most 1.
    """
    found: list[Found] = []
    for number in range(most + LOOKED_PAST):
        if (candidate := discover_one(scenes, seed + number, told)) is None:
            break
        found.append(candidate)
        scenes = with_drawn(scenes, candidate.sprite, candidate.pose)
        if sum(other.counts for other in found) == most:
            break
    return [candidate for candidate in found if candidate.counts]


def discover_one(scenes: Scenes, seed: int, told: Callable[[Tensor], float]) -> Found | None:
    """Finds what explains most of what stands out; None where nothing does."""
    generator = torch.Generator().manual_seed(seed)
    guesses = first_guesses(scenes, generator)
    if not guesses:
        return None
    tried = scenes.rows(torch.randperm(len(scenes), generator=generator)[:TRIED])
    sprite = max(guesses, key=lambda guess: explained(search(guess, tried, 3)[1]))
    turning, still = (learn(replace(sprite, turns=turns), tried, generator) for turns in (True, False))
    sprite = turning[0] if turning[1] > TURN_GAIN * still[1] else still[0]
    pose, gain = search(sprite, scenes)
    for _ in range(ROUNDS):
        fitted = fit_picture(sprite, scenes, pose, gain, generator)
        then, more = refine(fitted, scenes, pose, 5)
        if explained(more) < explained(gain):  # see `learn`
            break
        sprite, pose, gain = fitted, then, more
    again, more = search(sprite, scenes)
    pose, gain = torch.where((more > gain)[:, None], again, pose), torch.maximum(gain, more)
    difference = (scenes.frames - scenes.expected).square().mean(1, keepdim=True).clamp_max(CAP)
    share = gain.clamp_min(0).sum() / (difference * standing_out(scenes)).sum().clamp_min(1e-6)
    if share < WORTH or gain.median() < LEAST:
        return None
    looks_right = fits(sprite, scenes, pose).median().item()
    return Found(sprite, pose, share.item(), looks_right, told(pose[:, :2]))


def learn(sprite: Sprite, scenes: Scenes, generator: torch.Generator) -> tuple[Sprite, float]:
    """Fits its picture to a few frames, as far as that helps; gives it and what it then explains of one.

    A color is bound by what it covers (`fit_picture`), and where a thing is whiter or blacker than a table of
    its own side of gray, both may fade away together: then it stays what it was cut out as.
    """
    pose, gain = search(sprite, scenes, 3)
    for _ in range(ROUNDS):
        fitted = fit_picture(sprite, scenes, pose, gain, generator)
        then, more = search(fitted, scenes, 3)
        if explained(more) < explained(gain):
            break
        sprite, pose, gain = fitted, then, more
    return sprite, explained(gain)


def explained(gain: Tensor) -> float:
    """Gives what is explained of a usual frame."""
    return gain.clamp_min(0).mean().item()


def standing_out(scenes: Scenes) -> Tensor:
    """Where something is that nothing explains, (F, 1, H, W) bool."""
    apart = (scenes.frames - scenes.expected).abs().amax(1, keepdim=True) > STANDS_OUT
    return apart & ~scenes.robot.expand_as(apart) if len(scenes.robot) > 1 else apart


def first_guesses(scenes: Scenes, generator: torch.Generator) -> list[Sprite]:
    """Cuts pieces that stand out out of frames: of about the usual size or more, whole, at random."""
    from scipy.ndimage import find_objects, label

    H, W = scenes.frames.shape[-2:]
    pieces: list[tuple[float, int, np.ndarray, tuple[float, float], float]] = []
    for row, mask in enumerate(standing_out(scenes)[:, 0].cpu().numpy()):
        labels, _ = label(mask)
        for number, box in enumerate(find_objects(labels), 1):
            piece = labels[box] == number
            area = float(piece.sum())
            inner = all(part.start > 0 and part.stop < side for part, side in zip(box, (H, W), strict=True))
            if area < SMALLEST or not inner:
                continue
            y, x = np.nonzero(piece)
            middle = y.mean() + box[0].start + 0.5, x.mean() + box[1].start + 0.5
            radius = float(np.hypot(y - y.mean(), x - x.mean()).max() + 1.5)
            if radius <= LARGEST * min(H, W):
                pieces.append((area, row, labels == number, middle, radius))
    if not pieces:
        return []
    # By how much of all that stands out lies in pieces up to that size: small ones are many.
    pieces.sort(key=lambda piece: piece[0])
    mass = np.cumsum([piece[0] for piece in pieces])
    picks = np.searchsorted(mass, mass[-1] * np.linspace(0.35, 0.85, GUESSES))
    return [cut_out(scenes, *pieces[i][1:]) for i in dict.fromkeys(picks.tolist())]


def cut_out(
    scenes: Scenes, row: int, piece: np.ndarray, middle: tuple[float, float], radius: float
) -> Sprite:
    """Makes a sprite of a piece (H, W) bool of frame number `row`."""
    cover = F.avg_pool2d(torch.from_numpy(piece).float()[None, None], 3, 1, 1).clamp(0, 1)
    cover = torch.maximum(cover, torch.from_numpy(piece).float())[0].to(scenes.frames)
    side = 2 * math.ceil(FINER * radius)
    steps = ((torch.arange(side, device=cover.device) + 0.5) / side * 2 - 1) * radius
    at = torch.stack(torch.meshgrid(steps + middle[0], steps + middle[1], indexing="ij"))[None]
    H, W = piece.shape
    where = torch.stack([at[:, 1] / W, at[:, 0] / H], -1) * 2 - 1
    both = torch.cat([scenes.frames[row] * cover, cover])[None]
    return Sprite(F.grid_sample(both, where, align_corners=False)[0], radius, turns=True)


def fit_picture(
    sprite: Sprite, scenes: Scenes, pose: Tensor, gain: Tensor, generator: torch.Generator
) -> Sprite:
    """Fits color and cover to the frames in which it was found at poses (F, 3)."""
    good = torch.nonzero(gain > 0.3 * gain.median())[:, 0]
    if not len(good):  # nothing of it is anywhere
        return sprite
    with torch.enable_grad():
        image = sprite.image.clone().requires_grad_()
        optimizer = torch.optim.Adam([image], FIT_RATE)
        for step in range(FIT_STEPS):
            optimizer.param_groups[0]["lr"] = FIT_RATE * (1 - step / FIT_STEPS) + 1e-3
            rows = good[torch.randint(len(good), (FIT_BATCH,), generator=generator).to(good.device)]
            cut = crops(scenes.rows(rows), pose[rows, :2], sprite.half)
            color, cover = sample(image, in_own_frame(pose[rows], cut.at), sprite.radius).split([3, 1], 1)
            drawn = color + (1 - cover) * cut.expected
            _, counts = bounded_gain(cut, drawn)
            loss = ((drawn - cut.frames).square() * counts).mean() + 1e-4 * image[3].abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                image[3].clamp_(0, 1)
                image[:3].copy_(torch.maximum(torch.minimum(image[:3], image[3]), -image[3]))
    return replace(sprite, image=image.detach())


def with_drawn(scenes: Scenes, sprite: Sprite, pose: Tensor) -> Scenes:
    """The same scenes, the object at poses (F, 3) now expected."""
    H, W = scenes.frames.shape[-2:]
    steps = (torch.arange(n, device=pose.device) + 0.5 for n in (H, W))
    at = torch.stack(torch.meshgrid(*steps, indexing="ij"))[None].expand(len(pose), -1, -1, -1)
    behind = scenes.expected.expand(len(pose), -1, -1, -1)
    return replace(scenes, expected=draw(sprite, pose, at, behind))
