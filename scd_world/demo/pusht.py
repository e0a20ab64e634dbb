"""The demonstration's first part: policies act in the imagined PushT, the simulator repeats their actions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium

import scd_envs  # noqa: F401 (registers the ids)
from scd_envs import simulators
from scd_policies import make
from scd_world.demo.config import DemoConfig
from scd_world.demo.sim_comparison import (
    LABELS,
    SimComparison,
    as_json,
    evenly_spaced,
    measure,
    run_both,
    steps_per_second,
    summary,
    write_films,
)
from scd_world.reporting import video
from scd_world.world.world import World

POLICIES = {"scripted_pusht": "scripted pusher", "random_walk": "random walk"}
STEPS = (1, 4, 16, 32, 64)
COLUMNS = {
    "psnr": "PSNR, dB",
    "psnr_copy": "copy-last",
    "agent_distance": "agent, px",
    "block_distance": "block, px",
    "block_angle": "block, °",
}
FILMED = 2  # episodes of each policy


def show_pusht(config: DemoConfig, out: Path, device: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Both policies from the first frames of recorded episodes: figures, and the files that it wrote."""
    print(
        "\n── PushT: policies act in the imagination; the real simulator repeats their actions ──", flush=True
    )
    try:
        simulator = simulators.make("pusht")
    except ImportError as error:
        print(
            f"Left out, because the real simulator is not installed ({error}). It comes with:\n"
            "  pip install 'gym-pusht>=0.1.8' 'pymunk>=6.6,<7'"
        )
        return {"left_out": str(error)}, {}
    chosen: dict[str, Any] = {"world": config.world} if config.world else {}
    env: Any = gymnasium.make("scd_world/PushT-v0", device=device, num_steps=config.num_steps, **chosen)
    world: World = env.unwrapped.world
    starts = evenly_spaced(world.starts.first_frames.tolist(), config.episodes)
    envs = gymnasium.make_vec(
        "scd_world/PushT-v0",
        num_envs=len(starts),
        world=world,
        num_steps=config.num_steps,
        horizon=config.horizon,
        success_threshold=1.0,  # goes on after an imagined success
    )
    seeds = [config.seed + i for i in range(len(starts))]
    report: dict[str, Any] = {"world": config.world or "shipped", "starts": starts}
    pairs: dict[str, SimComparison] = {}
    for policy, name in POLICIES.items():
        acting = make(policy, envs.single_action_space)
        pairs[name] = run_both(envs, simulator, acting, starts, config.horizon, seeds, name)
        curves = measure(pairs[name], world.schema)
        report[policy] = as_json(curves)
        print(
            f"\n{name}, {len(starts)} episodes from their first frame: mean PSNR, median errors (of 512 px)\n"
        )
        print(summary(curves, STEPS, COLUMNS), "\n", flush=True)
    rate = report["steps_per_second"] = steps_per_second(env)
    print(f"One imagined step: {1000 / rate:.0f} ms, {rate:.1f} steps/s (real time: {world.schema.fps})")
    return report, write_videos(pairs, starts, out, world.schema.fps)


def write_videos(
    pairs: dict[str, SimComparison], starts: Sequence[Sequence[int]], out: Path, fps: int
) -> dict[str, str]:
    """A film of the first episodes of all policies, a picture strip of each policy's first."""
    films, names, strips = [], [], {}
    for name, pair in pairs.items():
        films += [pair.films(i) for i in range(min(FILMED, len(starts)))]
        names += [f"{name}, from episode {episode}" for episode, _ in starts[:FILMED]]
        true, imagined = pair.films(0)
        reached = [h for h in STEPS if h < len(true)]
        picture = video.strip(true, imagined, 1, reached, (*LABELS[:2], "|difference|"))
        file = f"pusht_{name.replace(' ', '_')}.png"
        video.write_png(out / file, picture)
        strips[file] = f"picture strip of the {name}'s first episode"
    true, imagined = zip(*films, strict=True)
    pictures = video.compare(true, imagined, 1, names, LABELS, height=192)
    return write_films(out / "pusht", pictures, fps) | strips
