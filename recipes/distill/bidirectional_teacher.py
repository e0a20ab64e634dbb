"""What a bidirectional teacher costs a student that renders frame by frame, on images (docs/distill.md).

The student is a trained world's decoder. By the same consistency distillation, from the same start, it learns
to render a frame in one step, from two teachers: the world itself, autoregressive, and a network of its size
that denoises all frames of a clip together, with full attention over space and time (Causal Forcing, arXiv
2602.02214). Where that one takes a frame depends on the noise of all others, which the student never has.

The world and the store are those of recipes/distill/pusht.sh:

    RUN=runs/distill
    python recipes/distill/bidirectional_teacher.py $RUN/video/world $RUN/video.zarr runs/bidirectional
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from safetensors.torch import load_file, save_file
from torch import Tensor

from scd_datasets.store.loader import WindowLoader, prefetch
from scd_datasets.store.store import WindowStore
from scd_world.baselines.causal_dit import CausalDiT
from scd_world.distill.consistency import Consistency, leap, path_end
from scd_world.distill.objective import DistillBatch, Objective, read_clip, uniform
from scd_world.evaluation.open_loop import (
    RowNoise,
    Window,
    WindowBatch,
    imagine_steps,
    load_batch,
    start_windows,
)
from scd_world.metrics.image import psnr, sharpness
from scd_world.model.decoder import attend_within
from scd_world.model.flow import VelocityField, euler_sample_interval, interpolate, logit_normal, to_velocity
from scd_world.model.noise import Noise
from scd_world.model.world_model import WorldModel
from scd_world.optim.config import OptimizerConfig
from scd_world.optim.schedule import learning_rate
from scd_world.prior.config import PriorConfig
from scd_world.reporting.tables import table
from scd_world.robot_data.clip import Clip
from scd_world.training.config import TrainConfig
from scd_world.training.distributed import make_accelerator
from scd_world.training.learner import Learner
from scd_world.world.build_model import build_model
from scd_world.world.world import World

SEEDS, CLIP, GRID, FINE = (0, 1), 6, 48, 50  # FINE: denoising steps of what a path leads to
WINDOWS, CONTEXT, HORIZONS, FEW = 32, 4, (1, 4, 16), (1, 3, CLIP)
FIGURES = ("PSNR, dB", "likeness, dB", "sharpness", "hand")
SAME: dict[str, Any] = {"batch_size": 3, "sequence_length": CLIP, "device": "cpu", "precision": "fp32"}
AS_WORLD = SAME | {"steps": 4000, "optimizer": OptimizerConfig(lr=1e-3, decay_share=0.5, ema_decay=0.995)}
OF_STUDENT = SAME | {
    "steps": 600,
    "optimizer": OptimizerConfig(lr=5e-4, decoder_lr_ratio=1.0, ema_decay=0.99),
}
Guide = Callable[[Clip, DistillBatch], VelocityField]  # gives a teacher's velocity for the frames of a clip


def joint_velocity(model: WorldModel, clip: Clip, batch: DistillBatch) -> VelocityField:
    """Gives the velocity of a dense network without a direction: after a clip's first frame, which is clean,
    all the others attend to each other, at one noise level.

    B clips of T next frames, K noise samples, F = K·B·T; N patches, M tokens per frame, S state, A action.
    """
    assert isinstance(model.core, CausalDiT)
    net, predict = model.core.net, model.config.predict
    S, (B, T) = clip.state.shape[-1], clip.action.shape[:2]
    K = len(batch.x) // (B * T)
    first = repeat(clip.obs[:, 0], "b c h w -> (k b) 1 c h w", k=K)
    start = model.append_task(torch.cat([clip.state[:, 0], clip.prev[:, S:]], dim=-1), clip.task)
    parts = [repeat(start, "b v -> (k b) 1 v", k=K), rearrange(batch.state_action, "(n t) v -> n t v", t=T)]
    state_action = torch.cat(parts, dim=1).flatten(0, 1)
    last = first.expand(-1, T, -1, -1, -1).flatten(0, 1)
    pixel_inputs = model.pixel_inputs(last, batch.state_action[:, :S], last)
    rotary = net.rotary(torch.arange(T + 1, device=first.device))

    def velocity(x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Of frames (F, C, H, W) whose t (F,) is the same within a clip."""
        frames = torch.cat([first, x_t.unflatten(0, (-1, T))], dim=1)
        level = F.pad(t.unflatten(0, (-1, T)), (1, 0))
        h, c = net.embed_noisy(frames.flatten(0, 1), level.flatten(), state_action)
        h, c = (rearrange(y, "(n t) 1 m d -> n t m d", t=T + 1) for y in (h, c))
        for block in net.blocks:
            h = block(h, c, rotary, attend_within)
        h, c = (rearrange(y[:, 1:], "n t m d -> (n t) 1 m d") for y in (h[:, :, : net.patches.count], c))
        return to_velocity(predict, net.pixel_head(h, c, pixel_inputs, x_t, t), x_t, t)

    return velocity


class Joint(Objective):
    """How the bidirectional teacher is trained: as the world was, but for one noise level per clip."""

    def forward(self, clip: Clip, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        batch, config = read_clip(self.teacher, clip, noise), self.model.config
        t = (
            logit_normal(noise.t[..., :1].expand_as(noise.t), config.t_mean, config.t_std)
            .flatten()
            .clamp_min(1e-3)
        )
        field = joint_velocity(self.model, clip, batch)
        loss = batch.error(leap(field, interpolate(batch.x, batch.noise, t), t), batch.x).mean()
        return loss, {"pixels": loss}


class Guided(Consistency):
    """`Consistency` along the paths of any teacher; all of a clip at one noise level, whichever it is."""

    guide: Guide

    def forward(self, clip: Clip, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            batch = read_clip(self.teacher, clip, noise)
        t = uniform(noise.t[..., :1].expand_as(noise.t))
        level = (t * self.grid).floor().clamp(max=self.grid - 1) + 1
        guide, target = self.guide(clip, batch), batch.field(self.target)
        now, then = level / self.grid, (level - 1) / self.grid
        x_t, end = path_end(guide, target, batch.x, batch.noise, now, then, 1 / self.grid)
        loss = batch.error(leap(batch.field(self.model), x_t, now), end).mean()
        return loss, {"pixels": loss}


def learn(objective: Objective, world: World, store: WindowStore, config: TrainConfig) -> None:
    """Trains the objective's model and stores its averaged weights in a file; one that exists is loaded."""
    model, path = objective.model, Path(config.out).with_suffix(".safetensors")
    if not path.exists():
        learner = Learner(model, world.stats, config, make_accelerator(config), objective)
        if isinstance(objective, Guided):
            objective.follow(learner.ema.average)
        loader = WindowLoader(store, store.split()[0], config.batch_size, config.sequence_length, config.seed)
        began = time.process_time()
        for step, windows in zip(range(config.steps), prefetch(loader, 0), strict=False):
            learner.update(windows, step, learning_rate(config.optimizer, (step + 1) / config.steps))
        print(f"{path}: {config.steps} updates, {time.process_time() - began:.0f} CPU s", flush=True)
        save_file(learner.ema.weights(), path)
    weights = load_file(path)  # of the parameters alone: what was computed from the data stays as it is
    for name, parameter in model.named_parameters():
        parameter.data.copy_(weights[name])
    model.eval().requires_grad_(False)


@torch.no_grad()
def rolled_out(model: WorldModel, world: World, batch: WindowBatch, num_steps: int, horizon: int) -> Tensor:
    """Steps as the world does, with this model: (T, B, C, H, W)."""
    world, noise = World(model, world.stats, world.starts), RowNoise(batch.windows, world.frame_shape, 0)
    steps = imagine_steps(world, start_windows(world, batch), batch.future[:, :horizon], noise, num_steps)
    return torch.stack([s.obs for s in steps])


@torch.no_grad()
def denoised_together(both: WorldModel, world: World, windows: WindowBatch) -> Tensor:
    """Denoises all frames after a known one, from the noise that stepping starts from: (T, B, C, H, W)."""
    clip, rows = windows.clip(world, CLIP), RowNoise(windows.windows, world.frame_shape, 0)
    x = torch.stack([rows.draw(clip.obs.device) for _ in range(CLIP)], dim=1)[None]
    batch = read_clip(world.model, clip, replace(world.model.sample_noise(clip, torch.Generator()), x=x))
    return (
        euler_sample_interval(joint_velocity(both, clip, batch), batch.noise, FINE)
        .unflatten(0, (-1, CLIP))
        .transpose(0, 1)
    )


def score(frames: Tensor, end: Tensor, windows: WindowBatch, horizons: tuple[int, ...]) -> list[str]:
    """Computes FIGURES of frames, given the ends of the world's own paths, both (T, B, C, H, W)."""
    means = []
    for h in horizons:
        x, true = frames[h - 1], windows.truth(h)
        # PushT's hand is the bluest thing where it is one thing, and paler where it is smeared.
        hand, recorded = ((y[:, 2] - y[:, 0]).amax((1, 2)) for y in (x, true))
        figures = psnr(x, true), psnr(x, end[h - 1]), sharpness(x) / sharpness(true), hand / recorded
        means.append([f"{v.mean():.2f}" for v in figures])
    return [" / ".join(figure) for figure in zip(*means, strict=True)]


def main(source: str, data: str, out: Path) -> None:
    torch.manual_seed(0)
    world, store = World.load(source), WindowStore.open(data)
    scd, dense = world.model, replace(world.config, architecture="causal_dit")
    both = build_model(dense, PriorConfig(kind="none"), world.schema, world.stats)
    out.mkdir(parents=True, exist_ok=True)
    learn(Joint(both, scd), world, store, TrainConfig(f"{out}/teacher", **AS_WORLD))

    reach = HORIZONS[-1] + 1
    long = [int(e) for e in store.split()[1] if store.lengths[e] >= CONTEXT + reach]
    windows = [Window(e, int(store.lengths[e] + CONTEXT - reach) // 2, reach) for e in long[:WINDOWS]]
    one_known, batch = (load_batch(store, windows, known, "cpu") for known in (1, CONTEXT))
    paths = {"autoregressive": rolled_out(scd, world, one_known, FINE, CLIP)}
    paths["bidirectional"] = denoised_together(both, world, one_known)
    rows = [[name, *score(x, paths["autoregressive"], one_known, FEW)] for name, x in paths.items()]
    print(f"{len(windows)} held-out windows, one frame known; the teachers, {FINE} steps, at {FEW}\n")
    print(table(["teacher", *FIGURES], rows), flush=True)

    guides: dict[str, Guide] = {
        "autoregressive": lambda _, batch: batch.field(scd),
        "bidirectional": partial(joint_velocity, both),
    }
    end = rolled_out(scd, world, batch, FINE, HORIZONS[-1])
    rows = [[f"(the world, {FINE} steps)", "", *score(end, end, batch, HORIZONS), ""]]
    for name, seed in [("none", 0), *((name, seed) for seed in SEEDS for name in guides)]:
        student = deepcopy(scd)
        if name in guides:
            objective = Guided(student, scd, GRID)
            objective.guide = guides[name]
            learn(objective, world, store, TrainConfig(f"{out}/{name}_{seed}", seed=seed, **OF_STUDENT))
        first = rolled_out(student, world, one_known, 1, 1)[0]
        own = psnr(first, paths.get(name, paths["autoregressive"])[0]).mean()
        frames = rolled_out(student, world, batch, 1, HORIZONS[-1])
        rows.append([name, str(seed), *score(frames, end, batch, HORIZONS), f"{own:.2f}"])
    print(f"\n{CONTEXT} known, one step, at {HORIZONS}; last, with one known, at 1: its own teacher's end\n")
    print(table(["teacher", "seed", *FIGURES, "likeness to its own"], rows))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
