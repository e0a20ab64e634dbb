"""Trains an autoencoder on a recording's own frames, before all else learns.

It is taught to forgive: noise lies on its latents while it learns, for what a world imagines is never exact.

F frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing

import torch
from torch import Tensor

from scd_world.codec.autoencoder import Autoencoder
from scd_world.codec.config import CodecTrainConfig
from scd_world.metrics.image import psnr, ssim
from scd_world.optim.pretraining import PretrainStage
from scd_world.optim.schedule import lr_schedule

WARM_UP = 100  # updates
PART = 16  # frames that are measured together


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
    device, generator = next(network.parameters()).device, torch.Generator().manual_seed(seed)
    stage = stage or PretrainStage()
    optimizer = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    stage.start(network, [(optimizer, config.lr)], generator)
    with closing(frames(stage.update)) as batches:

        def loss(progress: float) -> Tensor:
            true = next(batches)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                latents = network.encode(true)
                noise = torch.randn(latents.shape, generator=generator).to(latents)
                drawn = network.decode(latents + config.noise * noise)
            return reconstruction_loss(drawn.float(), true)

        def rates(progress: float) -> float:
            return min(1.0, (stage.update + 1) / WARM_UP) * lr_schedule(progress, 0.0, 1.0, 0.02)

        yield from stage.run(config.steps, rates, loss)


def reconstruction_loss(drawn: Tensor, frames: Tensor) -> Tensor:
    """Squared and absolute error, and the error of the differences between neighbors: edges."""
    error = drawn - frames
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return 4 * error.square().mean() + 0.3 * error.abs().mean() + 0.3 * edges


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
