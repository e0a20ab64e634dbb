"""What is read off the context before a pixel is drawn: next state, reward, success, and what moves."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from scd_world.model.layers import (
    Block,
    FourierEmbedder,
    Patches,
    Rotary,
    attend_with_prefix,
    position_embedding,
    zero_init,
)


class LowDimHeads(nn.Module):
    class Output(NamedTuple):
        state_residual: Tensor  # (…, S) what the state prior leaves, in units of its residual scale
        reward: Tensor  # (…,) model units
        success: Tensor  # (…,) logit

    def __init__(self, width: int, state_size: int) -> None:
        super().__init__()
        self.state_size = state_size
        # The last layer starts at zero: before training, the prior alone decides.
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.SiLU(), zero_init(nn.Linear(2 * width, state_size + 2))
        )

    @property
    def adds_nothing(self) -> bool:
        """Says whether it gives zeros whatever it reads: losses of weight 0 leave its last layer there."""
        return not any(parameter.any() for parameter in self.mlp[-1].parameters())

    def forward(self, token: Tensor) -> Output:
        """Reads the context's state token (…, D)."""
        out = self.mlp(token).float()
        return self.Output(out[..., : self.state_size], out[..., -2], out[..., -1])


class AnchorAttention(nn.Module):
    """Draws the next frame as far as the anchor, the first frame that was shown, tells it: an object that
    left the view and comes back is the same object.

    The encoder's window is some frames long. The anchor stays for the whole episode, and with it the state
    there: where a camera rides on an arm, both states together say where in the anchor to look. One
    transformer layer, once per frame, of the places of the frame, which see one another and the anchor's
    patches. They are told nothing of the last frame, or they would draw that, which is nearer, and never
    learn to look.
    """

    def __init__(
        self, patches: Patches, state: int, action: int, width: int, heads: int, octaves: int
    ) -> None:
        super().__init__()
        self.patches, self.state_size = patches, state
        self.patch_embed = nn.Linear(patches.values, width)
        self.position = position_embedding(patches.count, width)
        self.modulation_embed = FourierEmbedder(2 * state + action, width, octaves)
        self.block = Block(width, heads)
        self.rotary = Rotary(width // heads, *patches.positions())
        self.draw = nn.Linear(width, patches.values)

    def forward(self, anchor: Tensor, state_action: Tensor, anchor_state: Tensor) -> Tensor:
        """anchor (F, C, H, W), state_action (F, S + A) of the next frame, anchor_state (F, S) → what was
        found of that frame, (F, C, H, W)."""
        since = state_action[:, : self.state_size] - anchor_state
        condition = self.modulation_embed(torch.cat([since, state_action], dim=-1))[:, None, None]
        now = self.rotary(torch.zeros(1, dtype=torch.long, device=anchor.device))  # however long ago it was
        shown = self.patch_embed(self.patches(anchor[:, None])) + self.position
        see = attend_with_prefix(*self.block.keys_values(shown, now))
        found = self.block(self.position.expand(len(anchor), 1, -1, -1), condition, now, see)
        return self.patches.inverse(self.draw(found))[:, 0]


class OpticalFlowHead(nn.Module):
    """Says where each place of the next frame comes from, and moves the last frame there.

    A mixture of pictures learns a motion slowly, from how its error changes with a small one; the optical
    flow between recorded frames says what it is. V cameras, y x grid of the flow: `cells`² in each patch.
    """

    places: Tensor  # (H, W, 2)

    def __init__(self, width: int, patches: Patches) -> None:
        super().__init__()
        self.patches, self.cells = patches, flow_cells(patches.patch)
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        # The last layer starts at zero: before training, nothing moves.
        self.mlp = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), zero_init(nn.Linear(width, 2 * self.cells**2))
        )
        self.register_buffer("places", sampling_grid(*patches.size), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Context tokens (…, M, D) → (…, V, y, x, 2): from how far right and below, in shares of a frame."""
        out = self.mlp(self.norm(tokens[..., : self.patches.count, :])).float()
        rows, columns = self.patches.grid
        flow = rearrange(
            out, "... (v r c) (two p q) -> ... v (r p) (c q) two", r=rows, c=columns, p=self.cells, two=2
        )
        return flow / flow.new_tensor([columns, rows])  # the network counts in patches

    def move(self, image: Tensor, flow: Tensor) -> Tensor:
        """Moves frames (…, V·c, H, W) by their flow (…, V, y, x, 2)."""
        apart = image.unflatten(-3, (self.patches.cameras, -1)).flatten(0, -4)
        return moved(apart, flow.flatten(0, -4), self.places).view(image.shape)


def flow_cells(patch: int) -> int:
    """Gives how many cells of a flow lie in a patch, along each axis."""
    return 2 if patch % 2 == 0 else 1


def sampling_grid(height: int, width: int) -> Tensor:
    """Gives where each pixel's middle is, (H, W, 2): x and y in [-1, 1]."""
    return F.affine_grid(torch.eye(2, 3)[None], [1, 1, height, width], align_corners=False)[0]


def moved(image: Tensor, flow: Tensor, places: Tensor) -> Tensor:
    """Moves images (F, c, H, W) by a flow (F, y, x, 2) in shares of height and width, smooth between its
    cells' middles; what comes from beyond the border is the border. places (H, W, 2)."""
    smooth = F.interpolate(flow.movedim(-1, 1), image.shape[-2:], mode="bilinear", align_corners=False)
    where = places + 2 * smooth.movedim(1, -1)
    return F.grid_sample(image.float(), where, padding_mode="border", align_corners=False)
