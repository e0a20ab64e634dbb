"""The static layer: what stays of a shown frame when the robot moves on, and where a camera then sees it.

The renderer's parts are drawn over it, as layers ("Representing moving images with layers", Wang and Adelson,
IEEE Transactions on Image Processing 1994). Told by numbers where a block lies, and by the arm, which in
recordings always goes for it, a renderer believes the arm: it moved the block with any joint
(docs/cameras.md 21). The layer knows better.

F frames, S state, V cameras, C = 3·V channels, H W frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scd_world.model.layers import zero_init
from scd_world.model.prior import UNSEEN, Scene

NEAREST = 0.1  # of a plane that the camera looks at, beside where it usually is


class PlaneView(nn.Module):
    """Gives how each camera sees a plane, such as a table, of the state: a homography, (F, V, 3, 3), from the
    plane to the image, whose coordinates are (x, y, 1) in [-1, 1].

    A camera that rides on an arm goes where the joints say, and what a frame shows of a plane is elsewhere in
    another one by a homography (Hartley and Zisserman, Multiple View Geometry, 2004, section 13.1). Of one
    that does not it is the same whatever the state, or an arm would take along what it is always near to. And
    a picture may be older than the joints: the camera is where they were `lag` of a step before.
    """

    one: Tensor  # (9,)
    moves: Tensor  # (V,) 1 for a camera that goes where the state says, 0 for another one

    def __init__(self, size: int, cameras: int, hidden: int = 128) -> None:
        super().__init__()
        self.cameras = cameras
        self.linear = zero_init(nn.Linear(size, 8 * cameras))
        self.residual = nn.Sequential(
            *(nn.Linear(size, hidden), nn.SiLU()),
            *(nn.Linear(hidden, hidden), nn.SiLU()),
            zero_init(nn.Linear(hidden, 8 * cameras)),
        )
        self.lag = nn.Parameter(torch.zeros(()))
        self.register_buffer("one", torch.eye(3).flatten(), persistent=False)
        self.register_buffer("moves", torch.zeros(cameras))
        self.any_moves = False  # known without asking a device

    def set_moves(self, moves: Tensor) -> None:
        """Says which cameras go where the state says, (V,)."""
        self.moves.copy_(moves)
        self.any_moves = bool(moves.any())

    def forward(self, state: Tensor, last: Tensor) -> Tensor:
        """state (F, S), and the one before, (F, S)."""
        state = state - self.lag * (state - last)
        differs = (self.linear(state) + self.residual(state)).float().unflatten(1, (self.cameras, 8))
        return (self.one + F.pad(self.moves[:, None] * differs, (0, 1))).unflatten(-1, (3, 3))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Takes views from before they knew of a lag, too."""
        state_dict.setdefault(f"{prefix}lag", torch.zeros(()))
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.any_moves = bool(self.moves.any())


class StaticLayer(nn.Module):
    """Gives of a frame what stays when the robot moves on: a gate per cell between that frame, and what is
    guessed of the background that the robot covers. Convolutions that see nine cells around. And how that
    looks where the camera has gone meanwhile, as if all of it lay in a plane."""

    def __init__(self, size: int, channels: int, width: int = 32) -> None:
        """size: S."""
        super().__init__()
        self.cameras = channels // 3
        self.view = PlaneView(size, self.cameras)
        self.layers = nn.ModuleList(
            nn.Conv2d(inputs, width, 3, padding=apart, dilation=apart)
            for inputs, apart in ((2 * channels, 1), (width, 2), (width, 4), (width, 1))
        )
        self.out = zero_init(nn.Conv2d(width, self.cameras + channels, 3, padding=1))

    def forward(self, shown: Tensor, background: Tensor) -> Tensor:
        """shown (F, C, H, W), background (1, C, H, W) → (F, C, H, W)."""
        h = torch.cat([shown, shown - background], dim=1)
        for layer in self.layers:
            h = F.gelu(layer(h))
        gate, guessed = self.out(h).float().tensor_split([self.cameras], dim=1)
        gate = torch.sigmoid(gate).repeat_interleave(3, dim=1)
        return gate * shown + (1 - gate) * (background + guessed)

    def seen_at(self, state: Tensor, last: Tensor, scene: Scene, background: Tensor) -> Tensor:
        """Gives what stays, as the cameras see it of a state (F, S) and the one before, (F, S), (F, C, H, W);
        the background (1, C, H, W) where they did not look at the shown frame."""
        if not self.view.any_moves:
            return scene.still
        found, seen = self.looked_up(scene.still[:, None], state, last, scene)
        return torch.where(seen, found, self.by_camera(background[None]))[:, :, 0].flatten(1, 2)

    def follow(self, frames: Sequence[Tensor], state: Tensor, last: Tensor, scene: Scene) -> Tensor | None:
        """Gives frames as `StatePrior.follow` does; last (F, S)."""
        if not self.view.any_moves:
            return None
        found, seen = self.looked_up(torch.stack(tuple(frames), dim=1), state, last, scene)
        rides = self.view.moves[:, None, None, None, None] > 0
        return torch.where(rides & seen, found, UNSEEN).movedim(2, 1).flatten(2, 3)

    def looked_up(self, frames: Tensor, state: Tensor, last: Tensor, scene: Scene) -> tuple[Tensor, Tensor]:
        """Gives frames (F, N, C, H, W) as they look from where the cameras are now, (F, V, N, 3, H, W), and
        where they had looked there, bool (F, V, 1, 1, H, W)."""
        size, cameras = frames.shape[-2:], (-1, self.cameras)
        now = self.view(state, last)
        there = scene.view @ inverse(now) @ image_points(*size).to(now)  # (F, V, 3, H·W)
        where = there[:, :, :2] / there[:, :, 2:].clamp_min(NEAREST)
        where = where.unflatten(-1, size).movedim(2, -1).flatten(0, 1)
        of_each = self.by_camera(frames.float()).flatten(2, 3).flatten(0, 1)
        found = F.grid_sample(of_each, where, padding_mode="border", align_corners=False)
        seen = (where.abs() < 1).all(-1)[:, None, None]
        return found.unflatten(0, cameras).unflatten(2, (-1, 3)), seen.unflatten(0, cameras)

    def by_camera(self, frames: Tensor) -> Tensor:
        """(F, N, C, H, W) → (F, V, N, 3, H, W)."""
        return frames.unflatten(2, (self.cameras, 3)).movedim(2, 1)


def inverse(homography: Tensor) -> Tensor:
    """Gives the inverse of (…, 3, 3), by cross products of its rows."""
    a, b, c = homography.unbind(-2)
    crossed = torch.stack([torch.linalg.cross(*pair) for pair in ((b, c), (c, a), (a, b))], dim=-1)
    return crossed / (a * crossed[..., 0]).sum(-1)[..., None, None]


def image_points(height: int, width: int) -> Tensor:
    """(3, H·W): x, y and 1 of each cell's middle; both sides of the image are [-1, 1]."""
    y, x = ((2 * torch.arange(n) + 1.0) / n - 1 for n in (height, width))
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)]).flatten(1)
