"""What a bidirectional teacher costs a student that draws frame by frame, on pictures (docs/distill.md).

The student is a trained world's decoder. By the same consistency distillation, from the same start, it learns
to draw a frame in one step, from two teachers: the world itself, autoregressive, and a network of its size that
denoises all frames of a clip together, with full attention over space and time (Causal Forcing, arXiv
2602.02214). Where that one takes a frame depends on the noise of all others, which the student never sees.

    python recipes/bidirectional_teacher.py runs/distill/film/world runs/distill/film.zarr runs/distill/bidirectional
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange, repeat
from safetensors.torch import load_file, save_file
from torch import Tensor

from scd_datasets.loader import WindowLoader, prefetch
from scd_datasets.store import WindowStore
from scd_world.base_model import BaseModel
from scd_world.baselines.causal_dit import CausalDiT
from scd_world.clip import Clip
from scd_world.config import OptimiserConfig, TrainConfig
from scd_world.decoder import alone
from scd_world.devices import make_accelerator
from scd_world.distill.consistency import Consistency, leap, path_end
from scd_world.distill.objective import Objective, Scene, read_clip, uniform
from scd_world.distill.steps import edges
from scd_world.flow import Field, draw, interpolate, logit_normal, velocity
from scd_world.held_out import pick_episodes
from scd_world.learner import Learner
from scd_world.metrics import psnr
from scd_world.noise import Noise
from scd_world.open_loop import Batch, RowNoise, Window, begin, imagine_steps, load_batch
from scd_world.optimiser import learning_rate
from scd_world.report import table
from scd_world.world import World
from scd_world.world_model import WorldModel

TEACHER_UPDATES, STUDENT_UPDATES, SEEDS = 4000, 1000, (0, 1)
CLIP, GRID, FINE = 6, 48, 50  # steps of a clip; noise levels; denoising steps of what a path leads to
WINDOWS, CONTEXT, HORIZONS = 32, 4, (1, 4, 16)
Guide = Callable[[Clip, Scene], Field]  # a teacher's velocity for the frames of a clip


class Bidirectional(CausalDiT):
    """The dense network without a direction: behind a clip's first frame all the others, at one noise level.

    B clips of T next frames, K draws, F = K·B·T; N patches, M tokens per frame.
    """

    def field(self, clip: Clip, scene: Scene) -> Field:
        B, T = clip.act.shape[:2]
        net, S = self.net, clip.state.shape[-1]
        K = len(scene.x) // (B * T)
        begun = self.told(torch.cat([clip.state[:, 0], clip.before[:, S:]], dim=-1), clip.task)
        told = rearrange(scene.vector, "(n t) v -> n t v", t=T)
        told = torch.cat([repeat(begun, "b v -> (k b) 1 v", k=K), told], dim=1).flatten(0, 1)
        first = repeat(clip.obs[:, 0], "b c h w -> (k b) 1 c h w", k=K)
        rotary = net.rotary(torch.arange(T + 1))

        def field(x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
            """Of frames (F, C, H, W) whose t (F,) is the same within a clip."""
            frames = torch.cat([first, x_t.unflatten(0, (-1, T))], dim=1)
            level = torch.nn.functional.pad(t.unflatten(0, (-1, T)), (1, 0))  # the first frame is clean
            h, c = net.embed_drawn(frames.flatten(0, 1), level.flatten(), told)
            h, c = h[:, 0].unflatten(0, (-1, T + 1)), c[:, 0].unflatten(0, (-1, T + 1))
            for block in net.blocks:
                h = block(h, c, rotary, alone)
            h, c = h[:, 1:, : net.patches.count].flatten(0, 1), c[:, 1:].flatten(0, 1)
            seen = self.seen(first.expand(-1, T, -1, -1, -1).flatten(0, 1), scene.vector[:, :S])
            return velocity(self.config.predict, net.final(h[:, None], c[:, None], seen), x_t, t)

        return field


class Joint(Objective):
    """How it is taught: as the world was, but for one noise level per clip."""

    def forward(self, clip: Clip, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        scene, config = read_clip(self.teacher, clip, noise), self.model.config
        t = logit_normal(of_clip(noise.t), config.t_mean, config.t_std).flatten().clamp_min(1e-3)
        x_t = interpolate(scene.x, scene.noise, t)
        loss = scene.error(leap(self.model.field(clip, scene), x_t, t), scene.x).mean()
        return loss, {"pixels": loss}


class Guided(Consistency):
    """`Consistency` along the paths of any teacher; all frames of a clip at one noise level, whoever it is."""

    guide: Guide

    def forward(self, clip: Clip, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            scene = read_clip(self.teacher, clip, noise)
            level = (uniform(of_clip(noise.t)) * self.grid).floor().clamp(max=self.grid - 1) + 1
            guide, target = self.guide(clip, scene), scene.field(self.target)
            x_t, end = path_end(guide, target, scene.x, scene.noise, level, self.grid)
        loss = scene.error(leap(scene.field(self.model), x_t, level / self.grid), end).mean()
        return loss, {"pixels": loss}


def of_clip(t: Tensor) -> Tensor:
    """(K, B, T): the first frame's for all of a clip."""
    return t[..., :1].expand_as(t)


def learn(
    model: BaseModel, objective: Objective, world: World, store: WindowStore, config: TrainConfig
) -> None:
    """Leaves the averaged weights in the model and beside the run; what was learnt is not learnt again."""
    path = Path(config.out).with_suffix(".safetensors")
    if not path.exists():
        held_out = pick_episodes(world.provenance, store, None).episodes
        episodes = np.setdiff1d(np.arange(len(store.lengths)), held_out)
        learner = Learner(model, world.stats, config, make_accelerator(config), objective)
        if isinstance(objective, Guided):
            objective.follow(learner.ema.average)
        loader = WindowLoader(store, episodes, config.batch_size, config.clip_steps, config.seed)
        began = time.process_time()
        for step, windows in zip(range(config.steps), prefetch(loader, 0), strict=False):
            rate = learning_rate(config.optimiser, (step + 1) / config.steps)
            values, _ = learner.update(windows, step, rate)
            if (step + 1) % 200 == 0:
                spent = time.process_time() - began
                print(f"{config.out} {step + 1}: loss {values['loss']:.5f}, {spent:.0f} CPU s", flush=True)
        save_file(learner.ema.weights(), path)
    model.load_state_dict(load_file(path))
    model.eval().requires_grad_(False)


# ---- what came of it -------------------------------------------------------------------------------------


@torch.no_grad()
def rolled_out(model: WorldModel, world: World, batch: Batch, num_steps: int, horizon: int) -> Tensor:
    """(T, B, C, H, W): as the world steps, with this model."""
    noise = RowNoise(batch.windows, world.frame_shape, seed=0)
    world = World(model, world.stats, world.starts)
    steps = imagine_steps(world, begin(world, batch), batch.future[:, :horizon], noise, num_steps)
    return torch.stack([s.obs for s in steps])


@torch.no_grad()
def drawn_together(both: Bidirectional, world: World, batch: Batch) -> Tensor:
    """(T, B, C, H, W): behind one known frame, from the noise that stepping starts from."""
    clip, rows = batch.clip(world, CLIP), RowNoise(batch.windows, world.frame_shape, seed=0)
    noise = replace(
        world.model.draw_noise(clip, torch.Generator()),
        x=torch.stack([rows.draw(clip.obs.device) for _ in range(CLIP)], dim=1)[None],
    )
    scene = read_clip(world.model, clip, noise)
    return draw(both.field(clip, scene), scene.noise, FINE).unflatten(0, (-1, CLIP)).transpose(0, 1)


def hand(obs: Tensor) -> Tensor:
    """(B,) how blue the bluest pixel is: PushT's hand where it is one thing, less where it is smeared."""
    return (obs[:, 2] - obs[:, 0]).amax((1, 2))


def judge(drawn: Tensor, batch: Batch, end: Tensor, horizons: tuple[int, ...]) -> list[str]:
    """Per horizon: PSNR / likeness to `end` (T, B, C, H, W) / sharpness / the hand, a share of the recorded."""
    cells = []
    for h in horizons:
        x, true = drawn[h - 1], batch.truth(h)
        like, sharp, whole = psnr(x, end[h - 1]), edges(x) / edges(true), hand(x) / hand(true)
        means = [psnr(x, true).mean(), like.mean(), sharp.mean(), whole.mean()]
        cells.append("{:.2f} / {:.1f} / {:.3f} / {:.2f}".format(*means))
    return cells


def held_out_windows(world: World, store: WindowStore) -> list[Window]:
    """One in the middle of each of so many episodes, far enough from both ends."""
    episodes, last = pick_episodes(world.provenance, store, None).episodes, HORIZONS[-1] + 1
    long = [int(e) for e in episodes if store.lengths[e] >= CONTEXT + last]
    return [Window(e, int(store.lengths[e] + CONTEXT - last) // 2, last) for e in long[:WINDOWS]]


def main(source: str, data: str, out: Path) -> None:
    torch.manual_seed(0)
    world, store = World.load(source), WindowStore.open(data)
    scd, both = world.model, Bidirectional(world.config, world.schema, world.stats)
    out.mkdir(parents=True, exist_ok=True)

    def settings(name: str, steps: int, seed: int, optimiser: OptimiserConfig) -> TrainConfig:
        same = {"batch_size": 3, "clip_steps": CLIP, "device": "cpu", "precision": "fp32"}
        return TrainConfig(out=str(out / name), steps=steps, seed=seed, optimiser=optimiser, **same)

    as_world = OptimiserConfig(lr=1e-3, decay=0.5, ema=0.995)
    config = settings("bidirectional", TEACHER_UPDATES, 0, as_world)
    learn(both, Joint(both, scd), world, store, config)
    windows = held_out_windows(world, store)
    batch, alone_known = load_batch(store, windows, CONTEXT, "cpu"), load_batch(store, windows, 1, "cpu")

    few = (1, 3, CLIP)
    paths = {"autoregressive": rolled_out(scd, world, alone_known, FINE, CLIP)}
    paths["bidirectional"] = drawn_together(both, world, alone_known)
    rows = [[name, *judge(x, alone_known, paths["autoregressive"], few)] for name, x in paths.items()]
    what = "PSNR / likeness / sharpness / hand at"
    print(f"{len(windows)} held-out windows. Teachers, {FINE} denoising steps, one frame known")
    print(table(["teacher", *(f"{what} {h}" for h in few)], rows))

    end = rolled_out(scd, world, batch, FINE, HORIZONS[-1])
    rows = [["the world, 50 steps", "", *judge(end, batch, end, HORIZONS), ""]]
    guides: dict[str, Guide] = {
        "autoregressive": lambda _, scene: scene.field(scd),
        "bidirectional": both.field,
    }
    quick = OptimiserConfig(lr=5e-4, decoder_lr=1.0, ema=0.99)
    for name, seed in [("undistilled", 0), *((name, seed) for seed in SEEDS for name in guides)]:
        student = deepcopy(scd)
        if name in guides:
            objective = Guided(student, scd, GRID)
            objective.guide = guides[name]
            learn(student, objective, world, store, settings(f"{name}_{seed}", STUDENT_UPDATES, seed, quick))
        drawn = rolled_out(student, world, batch, 1, HORIZONS[-1])
        first = rolled_out(student, world, alone_known, 1, 1)[0]
        own = psnr(first, paths.get(name, paths["autoregressive"])[0]).mean()
        rows.append([f"{name}, 1 step", str(seed), *judge(drawn, batch, end, HORIZONS), f"{own:.2f}"])
        print(rows[-1], flush=True)
    print(
        table(["taught by", "seed", *(f"{what} {h}" for h in HORIZONS), "likeness to its own teacher"], rows)
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
