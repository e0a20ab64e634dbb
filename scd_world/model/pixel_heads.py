"""The decoder's last layer: tokens to a frame. A map per patch, or convolutions that see the last frame.

What a head sees at full resolution: the last frame and, where the state prior has a renderer, its drawing of
the next state.

F frames, N patches, D width, V cameras, C = 3·V channels, I images pixel_inputs, H W frame.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from scd_world.model.config import ModelConfig
from scd_world.model.layers import Patches, modulate, zero_init

COPY_BIAS = 2.0  # before training, a pixel is mostly what it was
# How sure a choice can be: with no bound it could not be unlearnt. With one of 4 a fiftieth of every pixel
# was of what was not chosen, a residue that cost more than the choice gained.
MAX_LOGIT = 8.0


class PatchHead(nn.Module):
    """Each token draws its own patch. Two layers: an edge in a patch is no linear function of where it is.

    With `copy_last` a gate per pixel keeps the last frame: what is not pushed can stay where it is. Where it
    is `bounded` it can always open again. With no bound it closes for good on pictures that hardly change:
    from 17 on, float32's σ is exactly 1, and neither gate nor drawing has a gradient left.
    """

    def __init__(self, width: int, patches: Patches, copy_last: bool, bounded: bool = True) -> None:
        super().__init__()
        self.patches, self.copy_last, self.bounded = patches, copy_last, copy_last and bounded
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Sequential(nn.SiLU(), zero_init(nn.Linear(width, 2 * width)))
        values = patches.values + copy_last * patches.patch**2
        # The bound alone is not enough: far outside it there is as good as no slope. What is summed to a
        # logit has size 1, whatever grows before it.
        norm = nn.RMSNorm(2 * width, eps=1e-6, elementwise_affine=False)
        hidden = nn.Sequential(nn.GELU(), norm) if self.bounded else nn.GELU()
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), hidden, zero_init(nn.Linear(2 * width, values)))

    def forward(self, h: Tensor, c: Tensor, pixel_inputs: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """h (F, 1, N, D), c (F, 1, 1, D), pixel_inputs (F, C, H, W) → (F, C, H, W). x_t, t: not read."""
        shift, scale = self.modulation(c).chunk(2, dim=-1)
        out = self.mlp(modulate(self.norm(h), shift, scale))
        drawn = self.patches.inverse(out[..., : self.patches.values])[:, 0]
        if not self.copy_last:
            return drawn
        logit = self.patches.inverse(out[..., self.patches.values :])[:, 0]
        keep = torch.sigmoid(COPY_BIAS + (bounded(logit) if self.bounded else logit))
        keep = keep.repeat_interleave(3, dim=1)  # one per pixel, for its three colors
        return keep * pixel_inputs + (1 - keep) * drawn


class ConvHead(nn.Module):
    """Convolutions draw what the tokens say, seeing the last frame and the background at full resolution.

    An edge that moves by a pixel is a small shift of what was there: easy for a convolution, hard for a map
    from a token to its patch. Each pixel mixes what it was, the background, the prior's drawing, and what is
    drawn: what stands still stays sharp, what is uncovered is the background itself, what the state knows is
    where the state is; where a camera moves, nearly all is what it was, moved (`warps`), and of one that
    rides on the robot it is known how: what is moved is the last frame as seen from where the camera goes.
    The noisy frame is not among the inputs: a path past the tokens would carry its noise into the image.
    """

    background: Tensor  # (C, H, W)
    first: Tensor

    def __init__(
        self,
        width: int,
        patches: Patches,
        background: Tensor,
        channels: int,
        given: int,
        warps: bool = False,
        skips: bool = False,
    ) -> None:
        """given: images in `pixel_inputs`; warps: it moves the first one, or one more that comes last; skips:
        it sees the noisy one."""
        super().__init__()
        self.patches, self.skips, self.given = patches, skips, given
        self.scale = 2 if patches.patch % 2 == 0 else 1  # the convolutions work on cells of scale² pixels
        cells, pixels = patches.patch // self.scale, self.scale**2
        images = given + 1 + warps + skips  # beside what is given the background, the last frame warped, x_t
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Sequential(nn.SiLU(), zero_init(nn.Linear(width, 2 * width)))
        self.warp = Warp(width, patches) if warps else None
        self.spread = nn.Linear(width, channels * cells**2)
        self.draw = nn.Sequential(
            nn.Conv2d(channels + 3 * images * pixels + skips, channels, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GELU(),
            ChannelNorm(),  # or what is chosen is chosen ever more surely
            zero_init(nn.Conv2d(channels, (3 + images + 1) * pixels, 1)),  # a drawing, and the share of each
        )
        self.register_buffer("background", background.clone(), persistent=False)  # (C, H, W)
        first = torch.zeros(images + 1, 1, 1)
        first[-2 - skips if warps else 0] = COPY_BIAS  # before training, what is warped is the last frame
        self.register_buffer("first", first, persistent=False)

    def forward(self, h: Tensor, c: Tensor, pixel_inputs: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """h (F, 1, N, D), c (F, 1, 1, D), pixel_inputs (F, I·C, H, W), x_t (F, C, H, W), t (F,) → (F, C, H,
        W)."""
        shift, scale = self.modulation(c).chunk(2, dim=-1)
        tokens = modulate(self.norm(h), shift, scale)
        tokens_drawn = self.cells(self.spread(tokens))
        # Cameras go into the batch: one way of drawing serves them all.
        background = self.background.expand(len(h), -1, -1, -1)
        pixel_inputs, carried = pixel_inputs.tensor_split([self.given * background.shape[1]], dim=1)
        pixel_inputs = self.split_cameras(torch.cat([pixel_inputs, background], dim=1))
        if self.warp is not None:
            moved = self.split_cameras(carried) if carried.shape[1] else pixel_inputs[:, :3]
            pixel_inputs = torch.cat([pixel_inputs, self.warp(tokens, moved)], dim=1)
        if self.skips:
            clear = rearrange(clear_part(x_t, t), "f (v c) h w -> (f v) c h w", c=3)
            pixel_inputs = torch.cat([pixel_inputs, clear], dim=1)
        seen = [tokens_drawn, F.pixel_unshuffle(pixel_inputs, self.scale).to(tokens_drawn.dtype)]
        if self.skips:
            level = t.to(tokens_drawn.dtype).repeat_interleave(self.patches.cameras)
            seen.append(level[:, None, None, None].expand(-1, 1, *tokens_drawn.shape[-2:]))
        out = self.draw(torch.cat(seen, dim=1))
        drawn, share = F.pixel_shuffle(out, self.scale).float().tensor_split([3], dim=1)
        images = rearrange(torch.cat([pixel_inputs, drawn], dim=1), "f (i c) h w -> f i c h w", c=3)
        share = (bounded(share) + self.first).softmax(dim=1)
        frame = (share[:, :, None] * images).sum(1)
        return rearrange(frame, "(f v) c h w -> f (v c) h w", v=self.patches.cameras)

    def split_cameras(self, images: Tensor) -> Tensor:
        """(F, I·C, H, W) → (F·V, I·3, H, W)."""
        return rearrange(images, "f (i v c) h w -> (f v) (i c) h w", v=self.patches.cameras, c=3)

    def cells(self, tokens: Tensor) -> Tensor:
        """(F, 1, N, channels · cells²) → (F·V, channels, H / scale, W / scale)."""
        (y, x), p = self.patches.grid, self.patches.patch // self.scale
        return rearrange(tokens, "f 1 (v y x) (c p q) -> (f v) c (y p) (x q)", y=y, x=x, p=p, q=p)


def clear_part(x_t: Tensor, t: Tensor) -> Tensor:
    """Gives what a noisy frame (F, C, H, W) at t (F,) tells of the frame by itself, shrunk toward 0 as far as
    it is noise: c_skip of "Elucidating the Design Space of Diffusion-Based Generative Models" (arXiv
    2206.00364, table 1), for the straight path and data of variance 1."""
    keep = (1 - t) / ((1 - t).square() + t.square())
    return keep[:, None, None, None] * x_t


class Warp(nn.Module):
    """Moves an image: each token says from where, and between the patches' centers it is interpolated.

    Of images from a camera that moves this keeps edges and texture, which a token would have to draw anew.
    """

    identity: Tensor  # (H, W, 2) where each pixel is: x and y in [-1, 1]
    sample = staticmethod(partial(F.grid_sample, padding_mode="border", align_corners=False))

    def __init__(self, width: int, patches: Patches) -> None:
        super().__init__()
        self.patches = patches
        self.offset = zero_init(nn.Linear(width, 2))  # x and y, in patches; before training, nothing moves
        (y, x), p = patches.grid, patches.patch
        identity = F.affine_grid(torch.eye(2, 3)[None], [1, 1, y * p, x * p], align_corners=False)[0]
        self.register_buffer("identity", identity, persistent=False)

    def forward(self, tokens: Tensor, image: Tensor) -> Tensor:
        """tokens (F, 1, N, D), image (F·V, 3, H, W) → the image, moved."""
        y, x = self.patches.grid
        offset = rearrange(self.offset(tokens).float(), "f 1 (v y x) d -> (f v) d y x", y=y, x=x)
        offset = F.interpolate(offset, image.shape[-2:], mode="bilinear", align_corners=False)
        where = self.identity + offset.movedim(1, -1) * offset.new_tensor([2 / x, 2 / y])
        return self.sample(image.float(), where)


class ChannelNorm(nn.Module):
    """Each pixel's channels, (F, c, H, W), to a root mean square of 1."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.float().square().mean(1, keepdim=True) + 1e-6).to(x.dtype)


def bounded(x: Tensor) -> Tensor:
    """In ±MAX_LOGIT, and never quite flat: a softmax that has made up its mind has no gradient left."""
    return MAX_LOGIT * F.softsign(x / MAX_LOGIT)


def make_pixel_head(
    config: ModelConfig, patches: Patches, background: Tensor, prior_renders: bool
) -> PatchHead | ConvHead:
    """Builds the last layer, tokens to a frame: of every core the same. background (C, H, W)."""
    # The last frame, the prior's drawing where it is no filter, what was looked up in the anchor, the anchor.
    given = 1 + (prior_renders and not config.state_filter) + config.anchor_attention + config.anchor_frame
    if config.head == "patch":
        return PatchHead(config.width, patches, config.copy_last, config.bounded_gate)
    return ConvHead(
        config.width,
        patches,
        background,
        config.conv_channels,
        given,
        warps=config.warp,
        skips=config.skip_connection,
    )
