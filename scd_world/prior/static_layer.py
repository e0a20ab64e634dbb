"""The static layer: what stays of a shown frame when the robot moves on, and where a camera then sees it.

The renderer's parts are drawn over it, as layers ("Representing moving images with layers", Wang and Adelson,
IEEE Transactions on Image Processing 1994). Told by numbers where a block lies, and by the arm, which in
recordings always goes for it, a renderer believes the arm: it moved the block with any joint
(docs/cameras.md 21). The layer knows better.

F frames, S state, V cameras, C = 3·V channels, H W frame.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scd_world.model.layers import zero_init
from scd_world.model.prior import Scene

NEAREST = 0.1  # of a plane that the camera looks at, beside where it usually is


class PlaneView(nn.Module):
    """Gives how each camera sees a plane, such as a table, of the state: a homography, (F, V, 3, 3), from the
    plane to the image, whose coordinates are (x, y, 1) in [-1, 1].

    A camera that rides on an arm goes where the joints say, and what a frame shows of a plane is elsewhere in
    another one by a homography (Hartley and Zisserman, Multiple View Geometry, 2004, section 13.1). Of one
    that does not it is the same whatever the state, or an arm would take along what it is always near to.
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
        self.register_buffer("one", torch.eye(3).flatten(), persistent=False)
        self.register_buffer("moves", torch.zeros(cameras))

    def forward(self, state: Tensor) -> Tensor:
        differs = (self.linear(state) + self.residual(state)).float().unflatten(1, (self.cameras, 8))
        return (self.one + F.pad(self.moves[:, None] * differs, (0, 1))).unflatten(-1, (3, 3))


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

    def seen_at(self, state: Tensor, scene: Scene, background: Tensor) -> Tensor:
        """Gives what stays, as the cameras see it of a state (F, S); the background (1, C, H, W) where they
        did not look at the shown frame. (F, C, H, W)."""
        now, then = self.view(state), self.view(scene.state)
        there = then @ inverse(now) @ image_points(*scene.still.shape[-2:]).to(now)  # (F, V, 3, H·W)
        depth = there[:, :, 2:].clamp_min(NEAREST)
        where = (there[:, :, :2] / depth).unflatten(-1, scene.still.shape[-2:]).movedim(2, -1).flatten(0, 1)
        frames = scene.still.float().unflatten(1, (self.cameras, 3)).flatten(0, 1)
        found = F.grid_sample(frames, where, padding_mode="border", align_corners=False)
        seen = (where.abs() < 1).all(-1)[:, None]
        other = background.unflatten(1, (self.cameras, 3)).repeat(len(state), 1, 1, 1, 1).flatten(0, 1)
        return torch.where(seen, found, other).unflatten(0, (-1, self.cameras)).flatten(1, 2)


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
