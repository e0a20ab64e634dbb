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
    write_videos,
)
from scd_world.reporting import video
from scd_world.world.model_card import what_it_is_given
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
SHOWN = 2  # episodes of each policy in the video


def show_pusht(config: DemoConfig, out: Path, device: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Runs both policies from the first frames of recorded episodes; gives figures, and files written."""
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
    print("\n" + what_it_is_given(world.schema).replace("**", ""))
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
    for key, name in POLICIES.items():
        policy = make(key, envs.single_action_space)
        pairs[name] = run_both(envs, simulator, policy, starts, config.horizon, seeds, name)
        curves = measure(pairs[name], world.schema)
        report[key] = as_json(curves)
        print(
            f"\n{name}, {len(starts)} episodes from their first frame: mean PSNR, median errors (of 512 px)\n"
        )
        print(summary(curves, STEPS, COLUMNS), "\n", flush=True)
    rate = report["steps_per_second"] = steps_per_second(env)
    print(f"One imagined step: {1000 / rate:.0f} ms, {rate:.1f} steps/s (real time: {world.schema.fps})")
    return report, write_pairs(pairs, starts, out, world.schema.fps)


def write_pairs(
    pairs: dict[str, SimComparison], starts: Sequence[Sequence[int]], out: Path, fps: float
) -> dict[str, str]:
    """Writes a video of the first episodes of all policies, and an image strip of each policy's first."""
    videos, names, strips = [], [], {}
    for name, pair in pairs.items():
        videos += [pair.videos(i) for i in range(min(SHOWN, len(starts)))]
        names += [f"{name}, from episode {episode}" for episode, _ in starts[:SHOWN]]
        true, imagined = pair.videos(0)
        reached = [h for h in STEPS if h < len(true)]
        image = video.strip(true, imagined, 1, reached, (*LABELS[:2], "|difference|"))
        file = f"pusht_{name.replace(' ', '_')}.png"
        video.write_png(out / file, image)
        strips[file] = f"image strip of the {name}'s first episode"
    true, imagined = zip(*videos, strict=True)
    images = video.compare(true, imagined, 1, names, LABELS, height=192)
    return write_videos(out / "pusht", images, fps) | strips
