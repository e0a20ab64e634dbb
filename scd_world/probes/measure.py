"""How good a dense world is when its layers are changed: imagined frames, and the loss at five noise levels.

N windows in batches of B, K noise levels, T steps, C H W frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scd_world.baselines import diffusion_forcing
from scd_world.evaluation.open_loop import RowNoise, WindowBatch, imagine_steps, start_windows
from scd_world.metrics.image import changed_pixels, psnr
from scd_world.metrics.statistics import summarize
from scd_world.model.noise import Noise
from scd_world.model.world_model import WorldModel
from scd_world.probes.config import ProbeConfig
from scd_world.robot_data.clip import Clip
from scd_world.world.world import World

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)  # noise levels t that the loss is averaged over
HORIZONS = (1, 2, 4, 8, 16, 32, 64)  # imagined steps at which frames are compared


@dataclass(frozen=True)
class Quality:
    """What one model scored on the windows; NaN where nothing was recorded to compare with."""

    psnr: dict[str, np.ndarray]  # h1, h4, …; changed_h1, … of the pixels that changed: (N,) dB
    first: Tensor  # (N, C, H, W) the first imagined frames


class HeldOutWindows:
    """The same windows with the same noise for every model that is measured."""

    def __init__(self, world: World, batches: Sequence[WindowBatch], config: ProbeConfig) -> None:
        self.world, self.batches, self.config = world, batches, config
        self.episodes = np.array([window.episode for batch in batches for window in batch.windows])

    @torch.no_grad()
    def measure(self, model: WorldModel) -> Quality:
        """Imagines all windows with this model."""
        parts = [self.imagine(model, batch) for batch in self.batches]
        psnr = {name: np.concatenate([values[name] for values, _ in parts]) for name in parts[0][0]}
        return Quality(psnr, torch.cat([first for _, first in parts]))

    def imagine(self, model: WorldModel, batch: WindowBatch) -> tuple[dict[str, np.ndarray], Tensor]:
        """Gives PSNR over the horizon, and the first imagined frames."""
        world, config = replace(self.world, model=model), self.config
        noise, actions = RowNoise(batch.windows, world.frame_shape, config.seed), batch.future
        steps = imagine_steps(
            world, start_windows(world, batch), actions[:, : config.horizon], noise, config.num_steps
        )
        frames = [world.images(s) for s in steps]
        return self.compare(batch, frames), frames[0]

    def copy_last(self) -> dict[str, np.ndarray]:
        """Gives the same PSNR of keeping the last context frame."""
        rows = [self.compare(b, [b.truth(0)] * min(self.config.horizon, b.steps)) for b in self.batches]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def compare(self, batch: WindowBatch, frames: Sequence[Tensor]) -> dict[str, np.ndarray]:
        """Computes PSNR at HORIZONS; NaN beyond the batch. frames: per imagined step (B, C, H, W)."""
        values: dict[str, np.ndarray] = {}
        for h in [h for h in HORIZONS if h <= self.config.horizon]:
            whole = changed = torch.full((len(batch.windows),), torch.nan)
            if h <= len(frames):
                truth, valid = batch.truth(h), batch.valid[:, h - 1]
                differs = changed_pixels(truth, batch.truth(0), self.config.changed_threshold)
                whole = psnr(frames[h - 1], truth).where(valid, torch.nan)
                changed = psnr(frames[h - 1], truth, differs).where(valid, torch.nan)
            values |= {f"h{h}": whole.cpu().numpy(), f"changed_h{h}": changed.cpu().numpy()}
        return values

    @torch.no_grad()
    def loss(self, model: WorldModel) -> float:
        """Computes the pixel loss of next frames after recorded ones, mean over LEVELS and windows."""
        total = 0.0
        for i, batch in enumerate(self.batches):
            clip = batch.clip(self.world, min(len(batch.action[0]), batch.context + 2))
            generator = torch.Generator(clip.obs.device).manual_seed(self.config.seed + i)
            _, losses = model.loss(clip, at_levels(model, clip, model.sample_noise(clip, generator)))
            total += losses["pixels"].item() * len(batch.windows)
        return total / len(self.episodes)


def at_levels(model: WorldModel, clip: Clip, noise: Noise) -> Noise:
    """Gives one noise per frame, at each of LEVELS; the history as it is when stepping."""
    levels = torch.tensor(LEVELS, device=noise.t.device)
    normal = (levels.logit() - model.config.t_mean) / model.config.t_std
    K, history_t, history_clean = len(LEVELS), noise.history_t, noise.history_clean
    return replace(
        noise.of_recordings(),
        t=normal[:, None, None].expand(K, *noise.t.shape[1:]),
        x=noise.x[:1].expand(K, *noise.x.shape[1:]),
        state=torch.zeros_like(noise.state),
        corruption_level=torch.zeros_like(noise.corruption_level),
        history_t=None if history_t is None else torch.full_like(history_t, diffusion_forcing.LEVEL),
        history_clean=None if history_clean is None else torch.zeros_like(history_clean),  # FAR's
    )


# ---- compared with the unchanged world ------------------------------------------------------------


def compare_quality(own: Quality, unchanged: Quality, episodes: np.ndarray) -> dict[str, Any]:
    """Compares window by window: `change` in dB with its 95 % interval, episodes resampled.

    `psnr_to_unchanged`, in dB: of the first imagined frames, to the unchanged world's.
    """
    row: dict[str, Any] = {"psnr_to_unchanged": psnr(own.first, unchanged.first).mean().item()}
    for name, values in own.psnr.items():
        change = summarize((values - unchanged.psnr[name])[:, None], episodes)
        row[name] = {
            "mean": mean(values),
            "change": change.mean[0],
            "low": change.low[0],
            "high": change.high[0],
        }
    return row


def mean(values: np.ndarray) -> float:
    """Averages the known values; NaN where there are none."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
