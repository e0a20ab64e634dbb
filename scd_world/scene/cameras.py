"""Cameras that a robot carries: where they are, of the state, and what of a shown frame they see from there.

A chain of joints puts a camera where a product of exponentials says, one factor for each joint (Lynch and
Park, Modern Robotics, 2017, section 4.1); what stands over a plane is seen elsewhere by plane and parallax
(Hartley and Zisserman, Multiple View Geometry, 2004, section 13.3). Nobody tells the joints' axes, the lens
or the heights: they are learnt from what was recorded (`fit_cameras.py`).

All of it is in a camera's own frame of reference at the state 0: x to the right, y down, z ahead. Lengths are
in units of the plane's distance. An image's coordinates are in [-1, 1].

F frames, N of them looked up, S state, V cameras, C = 3·V channels, H W frame, P = H·W cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scd_world.model.prior import UNSEEN, Scene
from scd_world.utils.precision import full_precision

NEAREST = 0.05  # that anything is to a camera, and cosine of the flattest angle that the plane is seen at
FARTHEST = 20.0  # that the plane is looked for along a ray
FOCAL_LENGTH = 1.2  # before it is learnt: that of a lens which sees 80 degrees
OUTSIDE = 2.0  # of an image, whose sides are 1 from its middle
LOOKS = 3  # that are had at the heights, each where the one before came to


class RidingCameras(nn.Module):
    """Where each camera is, of the state, and what it sees from there.

    A camera that does not ride stays where it is whatever the state, or an arm would take along what it is
    always near to. And a picture may be older than the joints: a camera is where they were `lag` of a step
    before.
    """

    moves: Tensor  # (V,) 1 for a camera that goes where the state says, 0 for another one

    def __init__(self, size: int, cameras: int) -> None:
        """size: S; cameras: V."""
        super().__init__()
        self.twists = nn.Parameter(torch.zeros(cameras, size, 6))  # per unit of the state: turn, then shift
        self.normal = nn.Parameter(torch.tensor([0.0, 0.0, 1.0]).repeat(cameras, 1))  # n·x = 1 in the plane
        self.log_focal = nn.Parameter(torch.full((cameras,), math.log(FOCAL_LENGTH)))  # of half the width
        self.center = nn.Parameter(torch.zeros(cameras, 2))
        self.distortion = nn.Parameter(torch.zeros(cameras))  # radial, of the first order
        self.lag = nn.Parameter(torch.zeros(()))
        self.register_buffer("moves", torch.zeros(cameras))
        self.any_moves = False  # known without asking a device

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.any_moves = bool(self.moves.any())

    def set_moves(self, moves: Tensor) -> None:
        """Says which cameras go where the state says, (V,)."""
        self.moves.copy_(moves)
        self.any_moves = bool(moves.any())

    def poses(self, state: Tensor, last: Tensor) -> Tensor:
        """Gives where the cameras are of a state (F, S) and the one before, (F, S): a turn and a place, (F,
        V, 3, 4)."""
        state = (state - self.lag * (state - last)).float()
        with full_precision(state):  # bf16 does not know where a pixel is
            return product(exp(self.moves[:, None, None] * self.twists * state[:, None, :, None]))

    def look_back(self, scene: Scene, state: Tensor, last: Tensor, looks: int = LOOKS) -> Tensor:
        """Gives where in the shown frame is what the cameras see of a state (F, S) now, (F, V, 2, P). looks:
        one is enough where all is flat."""
        (H, W), count = scene.height.shape[-2:], len(state)
        with full_precision(state):
            (turn, place), (then, there) = (
                pose.tensor_split([3], dim=-1) for pose in (self.poses(state, last), scene.view)
            )
            ahead = turn @ self.rays(H, W)  # (F, V, 3, P), as long as the plane is far
            descent = (self.normal[:, None] @ ahead).clamp_min(NEAREST)
            where, height = ahead[:, :, :2], torch.zeros_like(descent)
            for look in range(looks):
                if look:
                    height = sample(scene.height[:, :, None], where, (H, W))[:, :, 0].flatten(-2)[:, :, None]
                far = (1 - height - self.normal[:, None] @ place) / descent
                point = place + ahead * far.clamp(0, FARTHEST)
                where = self.project(then.mT @ (point - there), H / W)
            # A camera that came below what it looks at does not see it.
            where = where.masked_fill(far <= 0, OUTSIDE)
        return where.expand(count, -1, -1, -1)

    def rays(self, height: int, width: int) -> Tensor:
        """Gives the direction that each cell looks in, (V, 3, P), 1 ahead."""
        x, y = image_points(height, width, self.center.device)
        x, y = x - self.center[:, :1], y * (height / width) - self.center[:, 1:]
        x, y = (side / self.log_focal.exp()[:, None] for side in (x, y))
        straight = 1 + self.distortion[:, None] * (x.square() + y.square())
        return torch.stack([x * straight, y * straight, torch.ones_like(x)], dim=1)

    def project(self, points: Tensor, aspect: float) -> Tensor:
        """Gives where points (F, V, 3, P) in a camera's own frame are in its image, (F, V, 2, P). aspect: its
        height over its width."""
        flat = points[:, :, :2] / points[:, :, 2:].clamp_min(NEAREST)
        bent = 1 - self.distortion[:, None] * flat.square().sum(2).clamp(max=2.0)
        scale = (self.log_focal.exp()[:, None] * bent)[:, :, None]
        x, y = (flat * scale + self.center[:, :, None]).unbind(2)
        return torch.stack([x, y / aspect], dim=2)

    def seen_at(self, where: Tensor | None, scene: Scene, background: Tensor) -> Tensor:
        """Gives what stays, as the cameras see it now, (F, C, H, W); the background (1, C, H, W) where they
        did not look at the shown frame."""
        if where is None:
            return scene.still
        still = scene.still[:, None]
        found, seen = self.looked_up(still, where)
        now = torch.where(
            self.riding, torch.where(seen, found, by_camera(background[None])), by_camera(still)
        )
        return now[:, :, 0].flatten(1, 2)

    def carry(self, frames: Tensor, where: Tensor) -> Tensor:
        """Gives frames (F, C, H, W) as `StatePrior.carry` does."""
        found, seen = self.looked_up(frames[:, None], where)
        return torch.where(self.riding & seen, found, by_camera(frames[:, None]))[:, :, 0].flatten(1, 2)

    def follow(self, frames: Sequence[Tensor], where: Tensor) -> Tensor:
        """Gives frames as `StatePrior.follow` does."""
        found, seen = self.looked_up(torch.stack(tuple(frames), dim=1), where)
        return torch.where(self.riding & seen, found, UNSEEN).movedim(2, 1).flatten(2, 3)

    def looked_up(self, frames: Tensor, where: Tensor, mode: str = "bicubic") -> tuple[Tensor, Tensor]:
        """Gives frames (F, N, C, H, W) as they look from where the cameras are now, (F, V, N, 3, H, W), and
        where they had looked there, bool (F, V, 1, 1, H, W). where (F, V, 2, P): what `look_back` gives.

        By cubics: of a mean of four cells a third of the gradient energy is lost each time, and every step
        of a rollout looks at the frame before (docs/cameras.md 29).
        """
        size = frames.shape[-2:]
        seen = (where.abs() < 1).all(2).unflatten(-1, size)[:, :, None, None]
        found = sample(by_camera(frames.float()).flatten(2, 3), where, size, mode)
        return found.unflatten(2, (-1, 3)), seen

    @property
    def riding(self) -> Tensor:
        """(V, 1, 1, 1, 1), bool"""
        return self.moves[:, None, None, None, None] > 0


def exp(twist: Tensor) -> Tensor:
    """Gives the motions (…, 3, 4), a turn and a shift, that twists (…, 6) come to: the exponential map of
    SE(3) in closed form (Modern Robotics, proposition 3.25)."""
    turn, shift = twist.tensor_split([3], dim=-1)
    square = turn.square().sum(-1)[..., None, None].clamp_min(1e-8)  # of the angle
    angle = square.sqrt()
    a, b = angle.sin() / angle, 2 * (angle / 2).sin().square() / square
    one = torch.eye(3, dtype=turn.dtype, device=turn.device)
    axes = turn[..., None, :].expand(*turn.shape, 3)
    cross = torch.linalg.cross(axes, one.expand_as(axes)).mT  # cross @ x = turn × x
    twice = cross @ cross
    moved = (one + b * cross + (1 - a) / square * twice) @ shift[..., None]
    return torch.cat([one + a * cross + b * twice, moved], dim=-1)


def product(motions: Tensor) -> Tensor:
    """Gives what motions (F, V, S, 3, 4) come to, the last one first, (F, V, 3, 4): neighbors by pairs."""
    while (count := motions.shape[2]) > 1:
        even = count - count % 2
        first, then = motions[:, :, :even:2], motions[:, :, 1:even:2]
        both = first[..., :3] @ then
        both = torch.cat([both[..., :3], both[..., 3:] + first[..., 3:]], dim=-1)
        motions = torch.cat([both, motions[:, :, even:]], dim=2)
    return motions[:, :, 0]


def sample(images: Tensor, where: Tensor, size: Sequence[int], mode: str = "bilinear") -> Tensor:
    """Looks images (F, V, K, H, W) up at (F, V, 2, P), P cells of an image of this size: (F, V, K, *size)."""
    F_, V = where.shape[:2]
    places = where.mT.flatten(0, 1).unflatten(1, tuple(size))
    found = F.grid_sample(images.flatten(0, 1), places, mode, padding_mode="border", align_corners=False)
    return found.unflatten(0, (F_, V))


def by_camera(frames: Tensor) -> Tensor:
    """(F, N, C, H, W) → (F, V, N, 3, H, W)."""
    return frames.unflatten(2, (-1, 3)).movedim(2, 1)


def image_points(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """(2, H·W): x and y of each cell's middle; both sides of the image are [-1, 1]."""
    y, x = ((2 * torch.arange(n, device=device) + 1.0) / n - 1 for n in (height, width))
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x, y]).flatten(1)
