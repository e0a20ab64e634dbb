"""Dense motion: where in the frame that was shown last is what is drawn now.

A renderer knows the robot, and of what a hand holds no more than what usually is there; the frame that was
shown has it, in another place. Beside what is drawn now and what was drawn of the state then, a network sees
how far each thing has moved in between, and brings it along: a flow for each cell, and how far what was shown
there is to be trusted beside the drawing ("First Order Motion Model for Image Animation", Siarohin et al.,
arXiv 2003.00196, section 3.2: dense motion and occlusion).

With d what is drawn, a the frame that was shown and d_a the drawing of it, ã and d̃_a the same two where the
flow says, g how far they are trusted, c how far ã is taken as it is, and r what all of that still lacks,

    m = d + Σ g·(ã − d̃_a + c·(d̃_a − d)) + r

over two layers: what stays where it was in the scene, as a camera sees it that may have gone on, and what
stays where it was in the picture, as a gripper before such a camera does. Before anything is learned no flow
leads anywhere, both are trusted as far as the drawing has not changed, and r is 0.

The network is told both states besides (feature-wise modulation: "FiLM", Perez et al., arXiv 1709.07871):
a drawing of two fingers may look alike where their joints differ. And it says how far off m is to be
expected, by what its last layer has of the whole image.

F frames, V cameras, C = 3·V channels, H W frame, P = H·W cells, N numbers that are told.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from scd_world.model.layers import zero_init
from scd_world.robot_data.unchanged import unchanged
from scd_world.scene.cameras import image_points, sample
from scd_world.utils.precision import full_precision

LAYERS = 2
APART = (1, 2, 4, 8, 4, 2, 1)  # of the cells that a convolution sees: all see the greater part of a frame
GROUPS = 8  # that channels are normed in
REACH = 0.15  # of [-1, 1]: before it is learned, a drawing that differs by so much has changed
FARTHEST = 0.5  # that a flow leads, of half an image
BEYOND = 1.2  # where what lies outside of a frame is taken to be
SMALLEST = 0.02  # that anything is trusted before it is learned, or nothing would be
AS_IT_IS = -2.0  # logit of c, before it is learned
TOLD = 128  # width of what the network makes of what it is told
DOUBT = 64  # width of what tells how far off m is
USUAL_ERROR = -5.0  # logarithm of a square error, before it is learned


class Moved(NamedTuple):
    """What a frame that was shown comes to."""

    frame: Tensor  # (F, C, H, W) m
    found: Tensor  # (F, C, H, W) what was found of it where the flows lead, drawing aside
    moved: Tensor  # (F, C, H, W) m − r
    log_error: Tensor  # (F, V) logarithm of m's mean square error, as it is to be expected

    @property
    def mended(self) -> Tensor:
        """(F, C, H, W) m, off which r alone learns: or it paints what a flow has yet to find."""
        return self.frame - self.moved + self.moved.detach()


class DenseMotion(nn.Module):
    """Finds what is drawn now in the frame that was shown."""

    reach: Tensor  # (1,)

    def __init__(self, cameras: int, channels: int, told: int) -> None:
        """cameras: V; told: N."""
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(23 if i == 0 else channels, channels, 3, padding=apart, dilation=apart)
            for i, apart in enumerate(APART)
        )
        self.camera = nn.Parameter(torch.zeros(cameras, channels, 1, 1))  # what each one's pictures are like
        self.told = nn.Sequential(nn.Linear(told, TOLD), nn.GELU(), nn.Linear(TOLD, TOLD), nn.GELU())
        self.modulation = nn.ModuleList(zero_init(nn.Linear(TOLD, 2 * channels)) for _ in APART[1:])
        self.out = zero_init(nn.Conv2d(channels, 4 * LAYERS + 3, 3, padding=1))
        known = zero_init(nn.Linear(DOUBT, 1))
        nn.init.constant_(known.bias, USUAL_ERROR)
        self.doubt = nn.Sequential(nn.Linear(2 * channels, DOUBT), nn.GELU(), known)
        # Not a scalar: of one that is a constant AOTInductor makes no view.
        self.register_buffer("reach", torch.full((1,), REACH), persistent=False)

    def forward(
        self,
        drawn: Tensor,
        shown: Tensor,
        shown_drawn: Tensor,
        told: Tensor,
        where: Tensor | None,
        rides: Tensor,
    ) -> Moved:
        """drawn, shown, shown_drawn (F, C, H, W): d, a and d_a; told (F, N): of both states; where (F, V, 2,
        P): where in the shown frame is what cameras see that ride on the robot, None where none does; rides
        (V,): 1 for those."""
        size, V = drawn.shape[-2:], len(self.camera)
        d, a, d_a = (
            rearrange(x.float(), "f (v c) h w -> (f v) c h w", v=V) for x in (drawn, shown, shown_drawn)
        )
        both = torch.cat([a, d_a], dim=1)
        as_it_was = image_points(size[0], size[1], d.device).expand(len(d), -1, -1)  # (F·V, 2, P)
        rides = rides.repeat(len(drawn))[:, None, None]
        carried = as_it_was
        if where is not None:
            carried = torch.where(rides > 0, where.flatten(0, 1).clamp(-BEYOND, BEYOND), as_it_was)
        seen = (carried.abs() < 1).all(1).unflatten(-1, size)[:, None].float()
        there, there_drawn = look_up(both, carried, size).chunk(2, dim=1)
        same = unchanged(d, there_drawn, self.reach) * seen
        rest = rides[..., None] * (1 - same) * unchanged(d, d_a, self.reach)
        trusted = torch.cat([same, rest, 1 - same - rest], dim=1)
        place = as_it_was.unflatten(-1, size)
        h = [a, there, there_drawn, d, d - there_drawn, d - d_a, seen, trusted[:, :LAYERS], place]
        flows, logits, taken, lacking, error = self.tell(torch.cat(h, dim=1), told)
        logits = trusted.clamp_min(SMALLEST).log() + F.pad(logits, (0, 0, 0, 0, 0, 1))
        trust, share = logits.softmax(1), logits[:, :LAYERS].softmax(1)
        moved, found = d, torch.zeros_like(d)
        with full_precision(d):  # bf16 does not know where a cell is
            for i, at in enumerate((carried, as_it_was)):
                g, c = trust[:, i : i + 1], taken[:, i : i + 1]
                ours, ours_drawn = look_up(both, at + flows[:, i].flatten(2), size).chunk(2, dim=1)
                moved = moved + g * (ours - ours_drawn + c * (ours_drawn - d))
                found = found + share[:, i : i + 1] * ours
        frame, found, moved = (
            rearrange(x, "(f v) c h w -> f (v c) h w", v=V) for x in (moved + lacking, found, moved)
        )
        return Moved(frame, found, moved, error.unflatten(0, (-1, V)))

    def tell(self, seen: Tensor, told: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Gives of each layer its flow (F·V, LAYERS, 2, H, W), the logits of its trust and c, (F·V, LAYERS,
        H, W) each; r, (F·V, 3, H, W); and how far off all that is, (F·V,), of which nothing else learns."""
        V = len(self.camera)
        with full_precision(told):  # bf16 does not know half a degree of a joint
            told = self.told(told.float()).repeat_interleave(V, dim=0)
        h = F.gelu(F.group_norm(self.layers[0](seen), GROUPS) + self.camera.repeat(len(seen) // V, 1, 1, 1))
        for layer, modulation in zip(self.layers[1:], self.modulation, strict=True):
            scale, shift = modulation(told)[..., None, None].chunk(2, dim=1)
            h = h + F.gelu(F.group_norm(layer(h), GROUPS) * (1 + scale) + shift)
        out = self.out(h).float()
        flows, logits, taken, lacking = out.tensor_split([2 * LAYERS, 3 * LAYERS, 4 * LAYERS], dim=1)
        flows = FARTHEST * flows.unflatten(1, (LAYERS, 2)).tanh()
        with full_precision(h):
            whole = h.detach().float().flatten(2)
            error = self.doubt(torch.cat([whole.mean(2), whole.std(2)], dim=1))[:, 0]
        return flows, logits, torch.sigmoid(taken + AS_IT_IS), lacking, error

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Takes those of before, which did not say how far off they are, or were told nothing and left r out
        besides, as what they were."""
        if f"{prefix}out.bias" in state_dict and f"{prefix}doubt.0.weight" not in state_dict:
            for name, own in self.state_dict().items():
                whole, known = torch.zeros_like(own), state_dict.get(prefix + name)
                if known is not None:
                    whole[: len(known)] = known
                state_dict[prefix + name] = whole
        super()._load_from_state_dict(state_dict, prefix, *args)


def look_up(images: Tensor, where: Tensor, size: torch.Size) -> Tensor:
    """Looks images (N, K, H, W) up at (N, 2, P), P cells of an image of this size: (N, K, *size), by cubics,
    which keep the grain (docs/cameras.md 29)."""
    return sample(images[:, None], where[:, None], size, "bicubic")[:, 0]
