"""Trains an autoencoder on a recording's own frames, before all else learns.

It is taught to forgive: noise lies on its latents while it learns, for what a world imagines is never exact.
And its latents are to move as the pictures do: half of them are turned, zoomed and shifted a little, and are
to be drawn as the pictures moved in the same way. So a world can move what it saw (`model.warp`), and such
latents are easier to learn to draw as well (EQ-VAE, arXiv 2502.09509).

F frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scd_world.codec.autoencoder import Autoencoder
from scd_world.codec.codec import AutoencoderCodec
from scd_world.codec.config import CodecTrainConfig
from scd_world.metrics.image import psnr, ssim, texture_error
from scd_world.optim.pretraining import PretrainStage
from scd_world.optim.schedule import lr_schedule
from scd_world.robot_data.normalizer import encode_pixels
from scd_world.utils.precision import full_precision

WARM_UP = 100  # updates
PART = 16  # frames that are measured together
SCALES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6)  # of `unchanged`
TURN, ZOOM, SHIFT = 0.1, 0.1, 0.15  # usual size of a motion: radians, of 1, of half a side
BLUR = (1.0, 4.0, 6.0, 4.0, 1.0)  # along either axis, of the softest latents, over their sum
LEARNS_ON = 0.5  # updates of the decoder by itself, of all before
DECODER_RATE = 0.5  # of the learning rate
NEIGHBORHOOD = 8  # pixels
TEXTURE = 4.0  # weight


def fit_codec(
    network: Autoencoder,
    frames: Callable[[int], Generator[Tensor]],
    seed: int,
    config: CodecTrainConfig,
    bf16: bool,
    stage: PretrainStage | None = None,
) -> Generator[Tensor]:
    """Trains `network` in place; yields the loss of each update.

    frames(first): batches of frames (F, 3, H, W) in [-1, 1] from number `first` on, without end, on the
    network's device.
    """

    def loss(true: Tensor, generator: torch.Generator) -> Tensor:
        true, latents = moved_alike(true, network.encode(true).float(), generator)
        return reconstruction_loss(network.decode(noisy(latents, config.noise, generator)).float(), true)

    yield from learn(network, loss, frames, seed, config.steps, config.lr, bf16, stage)


def fit_decoder(
    network: Autoencoder,
    frames: Callable[[int], Generator[Tensor]],
    seed: int,
    config: CodecTrainConfig,
    bf16: bool,
    stage: PretrainStage | None = None,
) -> Generator[Tensor]:
    """Trains the decoder of a `network` that has learned on, in place; yields the loss of each update. What
    is encoded stays the same. frames: as in `fit_codec`."""

    def loss(true: Tensor, generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            true, latents = moved_alike(true, network.encode(true).float(), generator)
            latents = soften(latents, torch.rand(len(latents), generator=generator).to(latents))
        drawn = network.decode(noisy(latents, config.noise, generator)).float()
        return reconstruction_loss(drawn, true) + TEXTURE * texture_error(drawn, true, NEIGHBORHOOD).mean()

    steps, lr = decoder_steps(config.steps), DECODER_RATE * config.lr
    yield from learn(network.decoder, loss, frames, seed, steps, lr, bf16, stage)


def learn(
    network: nn.Module,
    loss: Callable[[Tensor, torch.Generator], Tensor],
    frames: Callable[[int], Generator[Tensor]],
    seed: int,
    steps: int,
    lr: float,
    bf16: bool,
    stage: PretrainStage | None,
) -> Generator[Tensor]:
    """Trains what of a codec is to learn; yields the loss of each update, of a batch of frames and what is
    drawn at random."""
    device, generator = next(network.parameters()).device, torch.Generator().manual_seed(seed)
    stage = stage or PretrainStage()
    optimizer = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    stage.start(network, [(optimizer, lr)], generator)
    with closing(frames(stage.update)) as batches:

        def of_batch(progress: float) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                return loss(next(batches), generator)

        def rates(progress: float) -> float:
            return min(1.0, (stage.update + 1) / WARM_UP) * lr_schedule(progress, 0.0, 1.0, 0.02)

        yield from stage.run(steps, rates, of_batch)


def decoder_steps(steps: int) -> int:
    """Gives the updates that the decoder learns on for, where all of it had `steps`."""
    return max(1, round(LEARNS_ON * steps))


def noisy(latents: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    return latents + noise * torch.randn(latents.shape, generator=generator).to(latents)


def moved_alike(frames: Tensor, latents: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Moves half of frames (F, 3, H, W) a little, and of their latents the same half alike."""
    motion = small_motions(len(frames) // 2, generator).to(frames)
    frames, latents = (
        torch.cat([move(x[: len(motion)], motion), x[len(motion) :]]) for x in (frames, latents)
    )
    return frames, latents


def soften(latents: Tensor, by: Tensor) -> Tensor:
    """Blurs latents (F, C, h, w), each by its share of `by` (F,): 0 not at all, 1 as the softest are."""
    C, kernel = latents.shape[1], latents.new_tensor(BLUR) / sum(BLUR)
    with full_precision(latents):
        padded = F.pad(latents, (2, 2, 2, 2), mode="replicate")
        soft = F.conv2d(padded, (kernel[:, None] * kernel).expand(C, 1, -1, -1), groups=C)
    return torch.lerp(latents, soft, by[:, None, None, None])


def small_motions(count: int, generator: torch.Generator) -> Tensor:
    """Draws affine maps (F, 2, 3): a turn, a zoom and a shift, as of a camera that moves a little."""
    turn, zoom, x, y = torch.randn(4, count, generator=generator)
    turn, zoom = TURN * turn, 1 + ZOOM * zoom
    cos, sin = zoom * turn.cos(), zoom * turn.sin()
    return torch.stack([cos, -sin, SHIFT * x, sin, cos, SHIFT * y], dim=1).unflatten(1, (2, 3))


def move(images: Tensor, motion: Tensor) -> Tensor:
    """Moves images (F, C, H, W) of any size by affine maps (F, 2, 3)."""
    if not len(motion):
        return images
    where = F.affine_grid(motion, list(images.shape), align_corners=False)
    return F.grid_sample(images, where, padding_mode="border", align_corners=False)


def reconstruction_loss(drawn: Tensor, frames: Tensor) -> Tensor:
    """Squared and absolute error, and the error of the differences between neighbors: edges."""
    error = drawn - frames
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return 4 * error.square().mean() + 0.3 * error.abs().mean() + 0.3 * edges


@torch.no_grad()
def fit_unchanged(codec: AutoencoderCodec, pixels: Tensor, earlier: Tensor, noise: float, seed: int) -> None:
    """Sets how far a latent may be from one that was shown and still count as the same: by the square error.

    pixels, earlier: frames and earlier ones of the same episodes, uint8 (F, V, H, W, 3); noise: on latents,
    as on imagined ones. Where detail of earlier frames never helps, none will be kept.
    """
    true, obs, shown = encode_pixels(pixels), codec.encode(pixels), codec.encode(earlier)
    generator = torch.Generator().manual_seed(seed)
    obs = obs + noise * torch.randn(obs.shape, generator=generator).to(obs)
    errors = {0.0: (codec.decode(obs) - true).square().mean().item()}
    for scale in SCALES:
        codec.unchanged.fill_(scale)
        drawn = codec.decode(obs, shown, codec.detail(earlier, shown))
        errors[scale] = (drawn - true).square().mean().item()
    codec.unchanged.fill_(min(errors, key=errors.__getitem__))


@torch.no_grad()
def reconstruction(network: Autoencoder, frames: Tensor) -> dict[str, float]:
    """Measures how close frames (F, 3, H, W) come back: the ceiling of all that is drawn through it.

    psnr, worst_psnr (of a frame) in dB; ssim.
    """
    drawn = torch.cat([network.decode(network.encode(part)) for part in frames.split(PART)]).clamp(-1, 1)
    found = psnr(drawn, frames)
    return {
        "psnr": found.mean().item(),
        "worst_psnr": found.min().item(),
        "ssim": ssim(drawn, frames).mean().item(),
    }
