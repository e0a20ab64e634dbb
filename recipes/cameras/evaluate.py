"""Measures what a world imagines against recorded frames, be it a world of pixels or of latents.

    python recipes/cameras/evaluate.py runs/latents/world data/cr5.zarr runs/cr5_codec   # of latents
    python recipes/cameras/evaluate.py runs/latents/world data/cr5.zarr runs/cr5_codec 1 # in one step
    python recipes/cameras/evaluate.py runs/pixels/world data/cr5.zarr                   # of pixels

Held-out episodes, 4 frames shown, then the recorded actions alone. PSNR is a mean over windows; sharpness the
mean difference between neighboring pixels, imagined over recorded; the state's error the mean over dimensions
and windows, in the recording's unit, beside that of a state that holds still. Writes a strip, recorded above
imagined.

B windows, H W pixels.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from autoencoder import Autoencoder
from PIL import Image
from torch import Tensor

from scd_datasets.store.store import WindowStore
from scd_world.metrics.image import psnr, ssim
from scd_world.model.world_model import observe_context
from scd_world.robot_data.clip import Clip
from scd_world.robot_data.normalizer import encode_pixels
from scd_world.world.world import World

WINDOWS, CONTEXT, HORIZON = 40, 4, 64
SHOWN = (1, 2, 4, 8, 16, 32, 64)


def choose(store: WindowStore) -> tuple[np.ndarray, np.ndarray]:
    """Chooses windows of the held-out episodes: (B,) episodes, (B,) first frames."""
    rng = np.random.default_rng(0)
    long_enough = [e for e in store.split()[1] if store.lengths[e] >= CONTEXT + HORIZON]
    episodes = np.array([long_enough[i % len(long_enough)] for i in range(WINDOWS)])
    return episodes, np.array([rng.integers(store.lengths[e] - CONTEXT - HORIZON + 1) for e in episodes])


def sharpness(frames: Tensor) -> float:
    return float(frames.diff(dim=-1).abs().mean() + frames.diff(dim=-2).abs().mean())


@torch.no_grad()
def main(world_folder: str, recorded: str, codec: str | None = None, num_steps: str | None = None) -> None:
    world, store = World.load(world_folder), WindowStore.open(recorded)
    inputs, decode = store, lambda frames: frames
    if codec is not None:
        model = Autoencoder().eval()
        model.load_state_dict(torch.load(Path(codec) / "autoencoder.pt"))
        inputs, decode = WindowStore.open(Path(codec) / "latents.zarr"), model.decode
    episodes, frames = choose(store)
    draws = None if num_steps is None else int(num_steps)  # denoising steps; None: as the world does
    steps = CONTEXT + HORIZON - 1
    windows = inputs.windows(episodes, frames, steps)
    clip = Clip.from_windows({k: torch.from_numpy(v) for k, v in windows.items()}, world.stats)
    true = encode_pixels(torch.from_numpy(store.windows(episodes, frames, steps)["pixels"]))
    s, generator = observe_context(world.model, clip, CONTEXT), torch.Generator().manual_seed(0)
    state = world.stats.decode_state(clip.state)
    last, strip, began = true[:, CONTEXT - 1], [], time.monotonic()
    print("| step | copy the last frame | world | SSIM | sharpness | state | state held |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for step in range(1, HORIZON + 1):
        noise = torch.randn(WINDOWS, *world.frame_shape, generator=generator)
        s = world.model.imagine(s, clip.action[:, CONTEXT + step - 2], noise, draws)
        if step in SHOWN:
            drawn, truth = decode(s.obs).clamp(-1, 1), true[:, CONTEXT - 1 + step]
            off, held = (
                (x - state[:, CONTEXT - 1 + step]).abs().mean()
                for x in (world.stats.decode_state(s.state), state[:, CONTEXT - 1])
            )
            strip.append(torch.cat([truth[0], drawn[0]], dim=1))
            print(
                f"| {step} | {psnr(last, truth).mean():.1f} | {psnr(drawn, truth).mean():.1f} | "
                f"{ssim(drawn, truth).mean():.3f} | {sharpness(drawn) / sharpness(truth):.2f} | "
                f"{off:.4f} | {held:.4f} |",
                flush=True,
            )
    per_step = 1000 * (time.monotonic() - began) / HORIZON / WINDOWS
    print(f"{per_step:.1f} ms a step and row, {WINDOWS} rows at a time")
    image = ((torch.cat(strip, dim=2) + 1) * 127.5).round().byte().permute(1, 2, 0)
    Image.fromarray(image.numpy()).save(Path(world_folder).parent / "strip.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
