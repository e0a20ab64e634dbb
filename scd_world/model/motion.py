"""Moves what was seen: each cell of the next frame says where it was in the last one.

Where a camera moves, or a hand, nearly all of the next frame was in the last one. To move it keeps edges and
texture, which a token would have to draw anew (transforming pixels: Finn et al. 2016, arXiv 1605.07157). But
a frame that is moved step after step is sampled anew each time, and blurs. So the frame that was last shown,
the *anchor*, stays, and with it where in it each cell came from, the *origin*: places may be sampled again
and again, for they are smooth, and the picture itself is sampled once.

Motion follows from the past and the action alone: it is read off the context, once per frame, before the
first denoising step.

B rows, T steps, M context tokens, D width, V cameras, C = 3·V channels, H W frame, n = B·V images.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from scd_world.model.layers import Patches, zero_init


class Motion(nn.Module):
    """Off the context's tokens, where in the last frame each cell of the next one was."""

    identity: Tensor  # (H, W, 2) where each cell is: x and y in [-1, 1] of the frame

    def __init__(self, width: int, patches: Patches) -> None:
        super().__init__()
        self.patches, self.places = patches, max(1, patches.patch // 2)  # per side of a patch
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        # Before training, nothing moves.
        self.offset = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), zero_init(nn.Linear(width, 2 * self.places**2))
        )
        (y, x), p = patches.grid, patches.patch
        identity = F.affine_grid(torch.eye(2, 3)[None], [1, 1, y * p, x * p], align_corners=False)[0]
        self.register_buffer("identity", identity, persistent=False)

    def start(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Gives anchor (B, C, H, W) and origin (B, V, H, W, 2) of rows that stand at recorded frames."""
        return frames, self.identity.expand(len(frames), self.patches.cameras, -1, -1, -1)

    def clip(self, tokens: Tensor, frames: Tensor) -> Tensor:
        """Moves each frame of a clip, and its first one by all motions up to there: (B, T, 2·C, H, W).

        tokens (B, T, M, D), frames (B, T, C, H, W). Of a chain of motions the last one alone learns.
        """
        where = self.where(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
        anchor, origin = self.start(frames[:, 0])
        moved = []
        for t in range(tokens.shape[1]):
            origin = follow(origin.detach(), where[:, t])
            moved.append(torch.cat([sample(frames[:, t], where[:, t]), sample(anchor, origin)], dim=1))
        return torch.stack(moved, dim=1)

    def step(self, tokens: Tensor, last: Tensor, anchor: Tensor, origin: Tensor) -> tuple[Tensor, Tensor]:
        """Moves the last frame and the anchor, (B, 2·C, H, W), and gives the origin of the next frame."""
        where = self.where(tokens)
        origin = follow(origin, where)
        return torch.cat([sample(last, where), sample(anchor, origin)], dim=1), origin

    def where(self, tokens: Tensor) -> Tensor:
        """Reads off tokens (B, M, D) the place of each cell in the last frame, (B, V, H, W, 2) in float32."""
        (y, x), q = self.patches.grid, self.places
        offset = self.offset(self.norm(tokens[:, : self.patches.count])).float()  # in patches
        offset = rearrange(offset, "b (v y x) (p q d) -> (b v) d (y p) (x q)", y=y, x=x, p=q, q=q, d=2)
        offset = F.interpolate(offset, self.identity.shape[:2], mode="bilinear", align_corners=False)
        offset = offset.movedim(1, -1) * offset.new_tensor([2 / x, 2 / y])
        return (self.identity + offset).unflatten(0, (-1, self.patches.cameras))


def sample(frames: Tensor, where: Tensor) -> Tensor:
    """Gives frames (B, 3·V, H, W) at places (B, V, H, W, 2), each camera by itself."""
    images = frames.unflatten(1, (where.shape[1], -1)).flatten(0, 1).float()
    found = F.grid_sample(images, where.flatten(0, 1), padding_mode="border", align_corners=False)
    return found.unflatten(0, where.shape[:2]).flatten(1, 2)


def follow(origin: Tensor, where: Tensor) -> Tensor:
    """Gives where each cell came from, (B, V, H, W, 2), one motion later."""
    V = origin.shape[1]
    return sample(origin.movedim(-1, 2).flatten(1, 2), where).unflatten(1, (V, 2)).movedim(2, -1)
