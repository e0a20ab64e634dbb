"""What a camera would see if only the robot were there: the middle of frames in which it stood alike.

No network draws it: it is what nine frames of other episodes, nearest by the robot's own state, agree on.
Where they do not, somebody moved an object, and the background is expected.

R recorded frames, F frames, S robot state, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scd_world.objects.scenes import Scenes

NEIGHBORS, AGREE = 9, 7
TOLD_BY = 5  # neighbors that a place is told by
DIFFERS = 0.1  # of 2: how far from the background the expected color is where the robot is
AT_ONCE = 64  # frames, of each of which nine others are compared
NEARBY = 3  # px on each side that a robot may be off


@dataclass(frozen=True)
class Recorded:
    """Frames of one camera, and how the robot stood."""

    frames: Tensor  # uint8 (R, 3, H, W)
    state: Tensor  # (R, S) each number's deviation 1; S = 0: nobody knows where the robot is
    episode: Tensor  # (R,)
    background: Tensor  # uint8 (3, H, W)

    def scenes(self, frames: Tensor, state: Tensor, episode: Tensor) -> Scenes:
        """Gives what is expected of frames uint8 (F, 3, H, W), from others than those of their episodes (F,).

        state (F, S) in the same units.
        """
        seen, still = unit(frames), unit(self.background)[None]
        if not self.state.shape[1] or len(self.state) < 4 * NEIGHBORS:
            return Scenes(seen, still, torch.zeros_like(still[:, :1], dtype=torch.bool))
        apart = torch.cdist(state, self.state)
        apart.masked_fill_(episode[:, None] == self.episode, torch.inf)
        enough = apart.isfinite().sum(1) >= NEIGHBORS  # frames of other episodes to ask
        nearest = apart.topk(NEIGHBORS, largest=False).indices
        parts = [self.agreed(rows) for rows in nearest.split(AT_ONCE)]
        usual, same = (torch.cat(part) for part in zip(*parts, strict=True))
        usual = unit(usual)
        robot = same & ((usual - still).abs().amax(1, keepdim=True) > DIFFERS)
        robot &= enough[:, None, None, None]
        expected = torch.where(robot, usual, still)
        nearby = F.max_pool2d(robot.float(), 2 * NEARBY + 1, 1, NEARBY) > 0
        return Scenes(seen, expected, nearby)

    def agreed(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Gives the usual color of each pixel of frames number `rows` (F, 9), uint8 (F, 3, H, W), and where
        most of them have it, bool (F, 1, H, W)."""
        near = self.frames[rows]  # (F, 9, 3, H, W)
        usual = middle(*(middle(*near[:, i : i + 3].unbind(1)) for i in (0, 3, 6)))
        apart = torch.maximum(near, usual[:, None]) - torch.minimum(near, usual[:, None])  # uint8
        return usual, ((apart.amax(2) < DIFFERS * 127.5).sum(1) >= AGREE)[:, None]

    def tells(self, state: Tensor, episode: Tensor, places: Tensor) -> float:
        """Gives how much of the variance of places (F, 2) follows from states (F, S): as the means of those
        at the nearest states of other episodes have it."""
        if not self.state.shape[1] or len(state) < 4 * NEIGHBORS:
            return 0.0
        apart = torch.cdist(state, state).masked_fill_(episode[:, None] == episode, torch.inf)
        enough = apart.isfinite().sum(1) >= TOLD_BY  # frames of other episodes to ask
        if enough.sum() < 4 * NEIGHBORS:
            return 0.0
        likely = places[apart[enough].topk(TOLD_BY, largest=False).indices].mean(1)
        places = places[enough]
        return 1 - ((places - likely).square().sum() / (places - places.mean(0)).square().sum()).item()


def middle(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Gives the median of three, number by number."""
    return torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))


def unit(pixels: Tensor) -> Tensor:
    """uint8 → [-1, 1]."""
    return pixels.float() / 127.5 - 1
