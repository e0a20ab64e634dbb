"""A table seen from above: an L or a disc lies anywhere, and a round robot is where its state says."""

import math

import torch
from torch import Tensor

from scd_world.objects.expected import Recorded
from scd_world.objects.scenes import Scenes

SIDE = 48
COLORS = {"L": (0.8, -0.6, -0.6), "disc": (0.8, -0.6, -0.6), "robot": (-0.7, -0.2, 0.9)}


def table() -> Tensor:
    """(3, H, W): a light table with a pattern."""
    y, x = pixels()
    wave = 0.15 * (y / 5).sin() + 0.15 * (x / 7).cos()
    return torch.stack([0.4 + wave, 0.5 + wave, 0.3 - wave])


def pixels() -> Tensor:
    steps = torch.arange(SIDE) + 0.5
    return torch.stack(torch.meshgrid(steps, steps, indexing="ij"))


def cover(shape: str, pose: Tensor) -> Tensor:
    """How much of each pixel (H, W) a shape at pose (3,) covers: by nine points in each."""
    y, x = (pixels() - pose[:2, None, None]).unbind(0)
    total = torch.zeros(SIDE, SIDE)
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            b, a = y + i / 3, x + j / 3
            u = pose[2].cos() * b + pose[2].sin() * a
            v = pose[2].cos() * a - pose[2].sin() * b
            if shape == "L":
                inside = ((u.abs() < 8) & ((v + 4).abs() < 2)) | (((u - 6).abs() < 2) & (v > -6) & (v < 6))
            else:
                inside = u.square() + v.square() < (5 if shape == "disc" else 4) ** 2
            total += inside / 9
    return total


def picture(layers: list[tuple[str, Tensor]]) -> Tensor:
    """uint8 (3, H, W) of objects at poses (3,), the last one on top."""
    image = table()
    for shape, pose in layers:
        share = cover(shape, pose)
        image = share * torch.tensor(COLORS[shape])[:, None, None] + (1 - share) * image
    return ((image + 1) * 127.5).round().to(torch.uint8)


def random_poses(count: int, seed: int, margin: float = 9.0) -> Tensor:
    """(count, 3), whole objects inside."""
    rand = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed))
    places = margin + (SIDE - 2 * margin) * rand[:, :2]
    return torch.cat([places, 2 * math.pi * rand[:, 2:]], 1)


def recording(count: int, seed: int, shape: str | None = "L") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Frames uint8 (F, 3, H, W), the robot's state (F, 2), episodes (F,), one each, poses (F, 3)."""
    poses, robots = random_poses(count, seed), random_poses(count, seed + 1, 5.0)
    frames = [
        picture([*([(shape, pose)] if shape else []), ("robot", robot)])
        for pose, robot in zip(poses, robots, strict=True)
    ]
    return torch.stack(frames), robots[:, :2] / SIDE * 4, torch.arange(count), poses


def scenes_of(frames: Tensor, state: Tensor, episode: Tensor) -> tuple[Scenes, Recorded]:
    """The frames with what is expected in them, by themselves."""
    recorded = Recorded(frames, state, episode, frames.median(0).values)
    return recorded.scenes(frames, state, episode), recorded
