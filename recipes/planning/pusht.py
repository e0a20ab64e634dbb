"""Planning on PushT, judged in the simulator: a mediocre pusher alone, and with plans made in a world.

    python recipes/planning/pusht.py envs/scd_envs/worlds/pusht runs/planning

Each arm of ARMS plays the same seeds; what counts is success in the simulator, whatever the world promised.
`simulator` plans as `best of 50` does, with the simulator itself as its model: the bound. Every episode is
kept in <out>/<arm>.jsonl, and the same command goes on where it was interrupted; the table and the picture
come from these files (table.py).

    python recipes/planning/pusht.py runs/found/train/world runs/planning_eyes --eyes data/pusht

With a world that finds the block in pictures by itself, the pusher looks, too (eyes.py): neither is told
where the block is.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from eyes import Eyes, fit_corners
from simulator_model import SimulatorModel
from table import report

from scd_envs import simulators
from scd_policies import make
from scd_policies.degraded import Degradation, DegradedPolicy
from scd_policies.policy import Policy
from scd_policies.rollout import episodes
from scd_world.world.world import World

SKILL = {"base": "scripted_pusht", "base_degrade": {"noise": 20.0}}  # px on every action: about half succeed
PLAN = {"horizon": 20, "execute": 5}
BEST = SKILL | PLAN | {"n": 50}
SEARCH = PLAN | {"execute": 10, "samples": 48, "iterations": 3}
GRADIENT = PLAN | {"execute": 10, "iterations": 8, "lr": 0.03}

# name: planner ("" none, "simulator" best_of_n in the simulator), its settings, episodes
ARMS: dict[str, tuple[str, dict[str, Any], int]] = {
    "base": ("", {}, 60),
    "best of 1": ("best_of_n", BEST | {"n": 1}, 60),
    "best of 50": ("best_of_n", BEST, 60),
    "simulator": ("simulator", BEST, 50),
    "icem + base": ("icem", SEARCH | SKILL, 24),
    "gradient + base": ("gradient", GRADIENT | SKILL, 24),
    "icem": ("icem", SEARCH, 24),
    "mppi + base": ("mppi", SEARCH | SKILL, 24),
    "mppi": ("mppi", SEARCH, 24),
    "gradient": ("gradient", GRADIENT, 24),
}


def build(arm: str, env: Any, world: World, corners: np.ndarray | None) -> Policy:
    """Makes the policy of an arm, for the simulator `env`. corners: of a base policy that looks (eyes.py)."""
    planner, settings, _ = ARMS[arm]
    base: Policy = make(SKILL["base"], env.action_space)
    if corners is not None:
        assert world.codec.finder is not None
        base = Eyes(base, world.codec.finder, corners)
    if not planner:
        return DegradedPolicy(base, env.action_space, Degradation(**SKILL["base_degrade"]))
    if corners is not None and "base" in settings:
        settings = settings | {"base": base}
    model = SimulatorModel(env, world.schema) if planner == "simulator" else world
    name = "best_of_n" if planner == "simulator" else planner
    return make(name, env.action_space, world=model, **settings)


def play(
    arm: str, world: World, out: Path, first_seed: int, max_steps: int, corners: np.ndarray | None
) -> None:
    """Plays the episodes of an arm that are still missing."""
    env = simulators.make("pusht", render_images=corners is not None)
    file = out / f"{arm}.jsonl"
    done = {json.loads(line)["seed"] for line in file.read_text().splitlines()} if file.exists() else set()
    missing = [seed for seed in range(first_seed, first_seed + ARMS[arm][2]) if seed not in done]
    policy = build(arm, env, world, corners)
    for seed in missing:
        began = time.perf_counter()
        (episode,) = episodes(env, policy, [seed], max_steps=max_steps)
        result = {
            "seed": seed,
            "success": bool(episode.success),
            "steps": len(episode),
            "reward": float(episode.reward.max()),
            "seconds": time.perf_counter() - began,
            **episode.decisions,
        }
        with file.open("a") as f:
            f.write(json.dumps(result) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("world")
    parser.add_argument("out", type=Path)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seed", type=int, default=80_000, help="of the first episode")
    parser.add_argument("--max-steps", type=int, default=200)
    parser.add_argument("--eyes", default=None, help="recording with the block's corners: the pusher looks")
    parser.add_argument("--figure", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    world = World.load(args.world)
    corners = fit_corners(args.eyes, world) if args.eyes else None
    for arm in args.arms:
        play(arm, world, args.out, args.seed, args.max_steps, corners)
    report(args.out, args.figure)


if __name__ == "__main__":
    main()
