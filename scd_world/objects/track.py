"""Follows known objects through episodes: sought in the first frame, refined from frame to frame.

F frames in all, B episodes side by side, K objects, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scd_world.objects.pose import fits, refine, search
from scd_world.objects.scenes import Scenes
from scd_world.objects.sprite import Sprite

STEPS = 4  # Gauss-Newton steps from one frame's pose to the next's
DOUBT, LOST = 0.8, 0.4  # share of it that looks as it should: below, it is sought anew; below, it is not seen
BETTER = 1.1  # times as much another place has to explain


def follow(sprite: Sprite, scenes: Scenes, previous: Tensor | None) -> tuple[Tensor, Tensor]:
    """Finds the object in one frame of each of B episodes; gives poses (B, 3), and whether it was seen (B,).

    previous (B, 3): where it was one frame earlier; None: nobody knows. Where it is not seen, it is taken to
    be where it was.
    """
    if previous is None:
        pose, _ = search(sprite, scenes)
        return pose, fits(sprite, scenes, pose) > LOST
    pose, gain = refine(sprite, scenes, previous, STEPS)
    right = fits(sprite, scenes, pose)
    if len(doubt := torch.nonzero(right < DOUBT)[:, 0]):
        again = scenes.rows(doubt)
        other, more = search(sprite, again)
        better = more > BETTER * gain[doubt]
        pose[doubt] = torch.where(better[:, None], other, pose[doubt])
        right[doubt] = torch.where(better, fits(sprite, again, other), right[doubt])
    seen = right > LOST
    return torch.where(seen[:, None], pose, previous), seen


def numbers(sprite: Sprite, pose: Tensor) -> Tensor:
    """Gives what a state holds of poses (…, 3): row and column of the middle, px, and of a turning object of
    a second point as well, half its radius from the first. (…, 2 or 4)"""
    middle, turn = pose[..., :2], pose[..., 2:]
    if not sprite.turns:
        return middle
    tip = middle + sprite.radius / 2 * torch.cat([turn.cos(), turn.sin()], -1)
    return torch.cat([middle, tip], -1)


def pose_of(sprite: Sprite, state: Tensor) -> Tensor:
    """Gives the poses (…, 3) that `numbers` came from."""
    middle = state[..., :2]
    if not sprite.turns:
        return torch.cat([middle, torch.zeros_like(middle[..., :1])], -1)
    arm = state[..., 2:] - middle
    return torch.cat([middle, torch.atan2(arm[..., 1:], arm[..., :1])], -1)
