"""Measures trainings that differ in one thing.

    python recipes/ablations/measure.py runs/ablations data/pusht48.zarr

Every world gets the same held-out windows, the same noise and a history as recorded, whatever its training's
seed was; the results go to `measured.json` in its run folder. Then one world of each variant steps and learns
in turn with all others, in one process: `speed.json`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scd_datasets.store.loader import WindowLoader
from scd_datasets.store.store import WindowStore
from scd_world.benchmark.cost import count_cost
from scd_world.benchmark.timing import dummy_state, interleave_steps
from scd_world.benchmark.training import compare_training
from scd_world.metrics.image import changed_pixels, psnr
from scd_world.model.world_model import WorldModel, observe_context
from scd_world.reporting.tables import write_json
from scd_world.robot_data.clip import Clip
from scd_world.robot_data.normalizer import Normalizer
from scd_world.world.world import World

WINDOWS, PART = 64, 32  # PART: as many at a time
CONTEXT, HORIZONS = 4, (1, 4, 16)
CHANGED_THRESHOLD = 8.0  # gray levels, from the last frame of the context
BATCH, SEQUENCE_LENGTH, LATENCY_STEPS = 6, 6, 4


def held_out_windows(store: WindowStore) -> dict[str, Tensor]:
    """Gives windows of episodes that no training had, whatever its seed; half of them with block motion."""
    return WindowLoader(store, store.split()[1], WINDOWS, CONTEXT - 1 + max(HORIZONS), seed=0).batch(0)


@torch.no_grad()
def measure(world: World, windows: dict[str, Tensor]) -> dict[str, float]:
    parts = [{name: value[i : i + PART] for name, value in windows.items()} for i in range(0, WINDOWS, PART)]
    found = [measure_part(world, part, seed) for seed, part in enumerate(parts)]
    return {name: float(np.nanmean(torch.cat([f[name] for f in found]))) for name in found[0]}


def measure_part(world: World, windows: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    clip, generator = Clip.from_windows(windows, world.stats), torch.Generator().manual_seed(seed)
    return losses(world.model, clip, generator) | closed_loop(world.model, clip, world.stats, generator)


def losses(model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
    """Computes losses, nothing perturbed, with the true actions and with the next window's."""
    model.config = replace(model.config, noise_samples=1, ctx_noise=0.0, frame_noise=0.0, t_ramp=0.0)
    noise = model.sample_noise(clip, generator).of_recordings()
    noise = replace(
        noise, state=torch.zeros_like(noise.state), corruption_level=torch.zeros_like(noise.corruption_level)
    )
    true, shuffled = (model.loss(c, noise)[1] for c in (clip, replace(clip, action=clip.action.roll(1, 0))))
    weight = model.pixel_weight(clip) * clip.valid[:, :, None, None, None]
    copied = weight * (clip.obs[:, 1:] - clip.obs[:, :-1]).square()
    found = {"loss": true["pixels"], "loss_shuffled": shuffled["pixels"], "loss_copied": copied.mean()}
    return {name: value[None] for name, value in found.items()}


def closed_loop(
    model: WorldModel, clip: Clip, stats: Normalizer, generator: torch.Generator
) -> dict[str, Tensor]:
    """Measures at each horizon, (B,): dB of the frame, of its changed pixels; the state's error, raw."""
    found: dict[str, Tensor] = {}
    s = observe_context(model, clip, CONTEXT)
    copied = s.obs
    for h in range(1, max(HORIZONS) + 1):
        i = CONTEXT - 2 + h  # the action that leads to the h-th imagined frame
        s = model.imagine(s, clip.action[:, i], torch.randn(copied.shape, generator=generator))
        if h in HORIZONS:
            true, valid = clip.obs[:, i + 1], clip.valid[:, i].bool()
            mask = changed_pixels(true, copied, CHANGED_THRESHOLD)
            for name, shown in {"psnr": s.obs, "copied": copied}.items():
                found[f"{name}_{h}"] = psnr(shown, true)[valid]
                found[f"{name}_changed_{h}"] = psnr(shown, true, mask)[valid]
            error = (stats.decode_state(s.state) - stats.decode_state(clip.state[:, i + 1])).abs()
            found[f"state_{h}"] = error.mean(-1)[valid]
    return found


def speed(worlds: dict[str, World], seconds: float) -> dict[str, dict[str, float]]:
    """Times an update as trained and a frame in 4 denoising steps, on the processor; medians over rounds."""
    models = {name: world.model for name, world in worlds.items()}
    updates = {row["model"]: row for row in compare_training(models, None, BATCH, SEQUENCE_LENGTH, seconds)}
    states = {name: dummy_state(model, 1, full=True) for name, model in models.items()}
    codecs = {name: world.codec for name, world in worlds.items()}
    rounds = list(interleave_steps(models, states, dict.fromkeys(models, LATENCY_STEPS), codecs, seconds))
    return {
        name: {
            "update_ms": updates[name]["cpu_ms"],
            "frame_ms": float(np.median([r[name].processor for r in rounds])) * 1e3,
            "frame_gflop": count_cost(model, 1, LATENCY_STEPS).flops / 1e9,
            "rounds": len(rounds),
        }
        for name, model in models.items()
    }


def main(folder: Path, store: WindowStore) -> None:
    windows, first = held_out_windows(store), {}
    for path in sorted(folder.glob("*/world")):
        name, _, _seed = path.parent.name.rpartition("_")
        world = World.load(path, "cpu")
        first.setdefault(name, World.load(path, "cpu"))
        if not (path.parent / "measured.json").exists():
            write_json(path.parent / "measured.json", measure(world, windows))
            print(path.parent.name, json.loads((path.parent / "measured.json").read_text()), flush=True)
    write_json(folder / "speed.json", speed(first, seconds=10.0 * len(first)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), WindowStore.open(sys.argv[2]))
