"""Improves an actor inside a world by PPO or SAC, judged on both sides; stopped, it goes on where it was.

A checkpoint is one file, written whole or not at all: the learner with its optimizer, every row of the
environment, the random generators, and what was judged so far. What comes after is as if nothing had
happened, to the last bit (on one kind of machine).
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from actor import ViewPolicy
from inside import PushInside
from judge import MAX_STEPS, judge
from learners import Settings, actor_learns, from_bytes, make_learner, to_bytes
from stable_baselines3 import PPO, SAC
from view import BlockView

from scd_envs.sb3 import WorldVecEnv
from scd_world.world.world import World

FIRST_SEED = 80_000  # of the simulator's starts on which every evaluation plays
TIMES = "seconds", "cpu_seconds"  # of learning, without evaluations


def make_envs(world: World, starts: np.ndarray, settings: Settings, view: BlockView) -> PushInside:
    """Makes the world's rows: no image is drawn, and no uncertainty told where none is asked for."""
    envs = gymnasium.make_vec(
        "scd_world/World-v0",
        num_envs=settings.rows,
        world=world,
        autoreset_mode="SameStep",
        horizon=MAX_STEPS,
        starts=starts,
        render_images=False,
        with_uncertainty=settings.max_uncertainty is not None,
        max_uncertainty=settings.max_uncertainty,
    )
    return PushInside(WorldVecEnv(envs), view)


def improve(
    out: Path,
    world: World,
    starts: np.ndarray,
    view: BlockView,
    settings: Settings,
    prepare: Callable[[PPO | SAC], None],
) -> list[dict[str, Any]]:
    """Learns `settings.steps` steps, from a checkpoint in `out` or anew; gives what was judged.

    starts: (F, 2) addresses of the world's start states, from which episodes begin.
    prepare: changes the untrained learner, such as by cloning into it; it is not called on resuming.
    Raises ValueError where the checkpoint was made with other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    file, envs = out / "checkpoint.pt", make_envs(world, starts, settings, view)
    model = make_learner(envs, settings)
    spent, judged = dict.fromkeys(TIMES, 0.0), []
    if file.exists():
        model, spent, judged = resume(file, envs, settings)
    else:
        prepare(model)
        judged.append(evaluation(model, world, view, settings) | spent)
        write(out, judged)
    while model.num_timesteps < settings.steps:
        began = time.perf_counter(), time.process_time()
        updates = model.num_timesteps // settings.update
        actor_learns(model, updates >= settings.warm_up)
        model.learn(settings.update, log_interval=None, reset_num_timesteps=False)
        for name, now, then in zip(TIMES, (time.perf_counter(), time.process_time()), began, strict=True):
            spent[name] += now - then
        over = model.num_timesteps >= settings.steps
        if over or (updates + 1) % settings.evaluate_every == 0:
            judged.append(evaluation(model, world, view, settings) | spent)
            write(out, judged)
        if over or (updates + 1) % settings.checkpoint_every == 0:
            save(file, model, envs, settings, spent, judged)
    return judged


def evaluation(model: PPO | SAC, world: World, view: BlockView, settings: Settings) -> dict[str, Any]:
    """Judges the policy as it is; prints a line."""
    found = judge(ViewPolicy(model.policy, view), world, FIRST_SEED, settings.episodes)
    rates = {side: float(np.mean(found[side])) for side in ("world", "simulator")}
    print(
        f"{model.num_timesteps:>9,} steps: world {rates['world']:.2f}, simulator "
        f"{rates['simulator']:.2f}, highest reward there {np.mean(found['simulator_reward']):.2f}",
        flush=True,
    )
    return {"steps": model.num_timesteps, **found}


def save(
    file: Path,
    model: PPO | SAC,
    envs: PushInside,
    settings: Settings,
    spent: dict[str, float],
    judged: list[dict[str, Any]],
) -> None:
    """Writes a checkpoint, whole or not at all."""
    held = {
        "settings": asdict(settings),
        **to_bytes(model),
        "envs": envs.get_state(),
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),  # noqa: NPY002  # both draw their batches with it
        "python": random.getstate(),
        "spent": spent,
        "judged": judged,
    }
    part = file.with_suffix(".part")
    torch.save(held, part)
    os.replace(part, file)


def resume(
    file: Path, envs: PushInside, settings: Settings
) -> tuple[PPO | SAC, dict[str, float], list[dict[str, Any]]]:
    """Goes on from a checkpoint of one's own: it is read as code, as every pickle is."""
    held = torch.load(file, weights_only=False)
    theirs, ours = asdict(Settings()) | held["settings"], asdict(settings)
    changed = {name: (theirs[name], ours[name]) for name in ours if theirs[name] != ours[name]}
    for name in ("steps", "evaluate_every", "checkpoint_every"):
        changed.pop(name, None)  # to go on further, or to look more often, is no other experiment
    if changed:
        named = ", ".join(f"{name} was {was!r}, now {now!r}" for name, (was, now) in changed.items())
        raise ValueError(f"{file} was made with other settings ({named}): give those, or another folder")
    envs.reset()  # rows to put the saved ones into
    envs.set_state(held["envs"])
    model = from_bytes(held, settings, envs)
    torch.set_rng_state(held["torch"])
    np.random.set_state(held["numpy"])  # noqa: NPY002
    random.setstate(held["python"])
    return model, held["spent"], held["judged"]


def write(out: Path, judged: list[dict[str, Any]]) -> None:
    (out / "evaluations.json").write_text(json.dumps(judged))
