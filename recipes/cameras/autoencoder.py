"""Learns an autoencoder of a recording's own frames, and writes the recording again as its latents.

    python recipes/cameras/autoencoder.py data/cr5.zarr runs/cr5_codec [seconds]

`runs/cr5_codec/autoencoder.pt` is the network, `runs/cr5_codec/latents.zarr` a window store that `scd-train`
reads like any other: what it takes for images of a quarter of the size are latents, 3 channels of 8 bits.
`evaluate.py` beside this file draws what a world of latents imagines, and measures it against the recording.

A latent is an image of three channels that moves as the picture does: it is learnt so that a latent
that is warped is drawn as the picture warped in the same way. So a world can move what it saw
(`model.warp=true`).

B frames, H W pixels; a latent is (3, H/4, W/4).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scd_datasets.store.arrays import EpisodeArrays
from scd_datasets.store.store import WindowStore, rows_of
from scd_datasets.store.writer import write_store
from scd_world.metrics.image import psnr, ssim

SHRINK = 4  # a latent's sides are this much smaller
WIDTH, BATCH, RATE = 72, 8, 2e-3
NOISE = 0.05  # on the latents while it learns: what a world imagines is never exact
TURN, ZOOM, SHIFT = 0.1, 0.1, 0.15  # how far half of the frames are warped: radians, of 1, of half a side
HELD_OUT_FRAMES = 96


class Residual(nn.Module):
    """Adds what a 3 × 3 convolution of the normalized features says."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.look, self.mix = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(F.gelu(self.look(self.norm(x))))


class Autoencoder(nn.Module):
    """Frames (B, 3, H, W) in [-1, 1] ↔ latents (B, 3, H/4, W/4) in [-1, 1]; H and W are multiples of 4."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        w = width
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4), nn.Conv2d(48, w, 3, padding=1), Residual(w), Residual(w),
            nn.Conv2d(w, 3, 1), nn.Tanh(),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv2d(3, w, 3, padding=1), Residual(w), Residual(w), Residual(w), Residual(w),
            nn.Conv2d(w, 48, 3, padding=1), nn.PixelShuffle(4),
        )  # fmt: skip

    def encode(self, frames: Tensor) -> Tensor:
        return self.encoder(frames)

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(latents)


def small_motion(count: int, generator: torch.Generator | None = None) -> Tensor:
    """Draws (B, 2, 3) affine maps: a turn, a zoom and a shift, as of a camera that moves a little."""
    turn, zoom, x, y = torch.randn(4, count, generator=generator)
    turn, zoom = TURN * turn, 1 + ZOOM * zoom
    cos, sin = zoom * turn.cos(), zoom * turn.sin()
    return torch.stack([cos, -sin, SHIFT * x, sin, cos, SHIFT * y], dim=1).unflatten(1, (2, 3))


def warp(images: Tensor, motion: Tensor) -> Tensor:
    """Moves images (B, C, H, W) of any size by affine maps (B, 2, 3)."""
    where = F.affine_grid(motion, list(images.shape), align_corners=False)
    return F.grid_sample(images, where, padding_mode="border", align_corners=False)


def loss(drawn: Tensor, frames: Tensor) -> Tensor:
    """Squared and absolute error, and the error of the differences between neighbors: edges."""
    error = drawn - frames
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return 4 * error.square().mean() + 0.3 * error.abs().mean() + 0.3 * edges


def frames_of(store: WindowStore, rows: np.ndarray) -> Tensor:
    """Reads the frames (B, 3, H, W) of rows (B,) of a store with one camera."""
    episodes = np.searchsorted(store.starts, rows, side="right") - 1
    pixels = store.windows(episodes, rows - store.starts[episodes], 1)["pixels"][:, 0, 0]
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def fit(store: WindowStore, seconds: float, seed: int = 0) -> Autoencoder:
    """Learns from the training episodes for so long; prints how it draws held-out frames."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    training, held_out = (rows_of(store.starts, store.lengths, episodes) for episodes in store.split())
    validation = frames_of(store, np.sort(rng.choice(held_out, HELD_OUT_FRAMES, replace=False)))
    model = Autoencoder()
    optimizer = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    began, step, said = time.monotonic(), 0, 0.0
    while (spent := time.monotonic() - began) < seconds:
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, step / 100) * max(0.02, 1 - spent / seconds)
        frames = frames_of(store, rng.choice(training, BATCH))
        latents, motion = model.encode(frames), small_motion(BATCH // 2)
        frames, latents = (
            torch.cat([warp(x[: len(motion)], motion), x[len(motion) :]]) for x in (frames, latents)
        )
        optimizer.zero_grad()
        loss(model.decode(latents + NOISE * torch.randn_like(latents)), frames).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if spent - said > 60:
            said = spent
            print(f"{spent:4.0f} s, {step} updates: {quality(model, validation)}", flush=True)
    print(f"{seconds:4.0f} s, {step} updates: {quality(model, validation)} (held-out episodes)")
    return model.eval()


@torch.no_grad()
def quality(model: Autoencoder, frames: Tensor) -> str:
    """Says how close frames come back."""
    motion = small_motion(len(frames), torch.Generator().manual_seed(0))
    latents = torch.cat([model.encode(part) for part in frames.split(16)])
    drawn, moved = (
        torch.cat([model.decode(part) for part in x.split(16)]).clamp(-1, 1)
        for x in (latents, warp(latents, motion))
    )
    found, of_moved = psnr(drawn, frames), psnr(moved, warp(frames, motion))
    return (
        f"PSNR {found.mean():.2f} dB, worst {found.min():.2f}; SSIM {ssim(drawn, frames).mean():.3f}; "
        f"of warped latents {of_moved.mean():.2f} dB"
    )


@torch.no_grad()
def latent_episodes(model: Autoencoder, store: WindowStore) -> Iterator[EpisodeArrays]:
    """Yields the episodes with their latents, in 8 bits, in the place of pixels."""
    for episode in range(len(store.lengths)):
        rows = rows_of(store.starts, store.lengths, np.array([episode]))
        parts = np.array_split(rows, len(rows) // 32 + 1)
        latents = torch.cat([model.encode(frames_of(store, part)) for part in parts])
        stored = ((latents + 1) * 127.5).round().byte().permute(0, 2, 3, 1)[:, None]
        yield EpisodeArrays(
            stored.numpy(), store.state[rows], store.action[rows], store.reward[rows], store.success[rows],
            int(store.episode_index[episode]), int(store.task[episode]),
        )  # fmt: skip


def main(source: str, out: Path, seconds: float = 480.0) -> None:
    store = WindowStore.open(source)
    schema = store.schema
    if len(schema.cameras) != 1 or schema.height % SHRINK or schema.width % SHRINK:
        raise SystemExit(
            f"{source}: expected one camera, its sides multiples of {SHRINK}; got {schema.cameras}"
        )
    out.mkdir(parents=True, exist_ok=True)
    model = fit(store, seconds)
    torch.save(model.state_dict(), out / "autoencoder.pt")
    small = {"height": schema.height // SHRINK, "width": schema.width // SHRINK}
    latents = replace(schema, **small, recorded=(), resize="stretch")
    write_store(out / "latents.zarr", latents, latent_episodes(model, store))
    print(f"next: scd-train data=zarr data.root={out / 'latents.zarr'} model.patch=4 model.warp=true out=…")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(float, sys.argv[3:]))
