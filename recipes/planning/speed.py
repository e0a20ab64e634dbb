"""How many steps per second plans are imagined with: state prior alone, with its uncertainty, with images.

    python recipes/planning/speed.py envs/scd_envs/worlds/pusht --threads 2

50 plans at once, as best of 50 plays them; the three take turns, so that other load meets all of them.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from scd_policies.planners.imagination import ImageImagination, Imagination, StateImagination
from scd_world.reporting.tables import table
from scd_world.world.world import World


@torch.no_grad()
def steps_per_second(imagination: Imagination, world: World, plans: int, steps: int) -> float:
    """Plays random plans from a recorded start."""
    episode, frame = world.starts.first_frames[0].tolist()
    start = world.starts.get(episode, frame)
    low, high = (torch.tensor(bound) for bound in world.schema.action_bounds)
    action = low + (high - low) * torch.rand(steps, plans, len(low))
    s = imagination.begin(start, plans, seed=0)
    began = time.perf_counter()
    for each in action:
        s, _ = imagination.step(s, each)
    return plans * steps / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("world")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plans", type=int, default=50)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    world = World.load(args.world)
    paths: dict[str, tuple[Imagination, int]] = {
        "state": (StateImagination(world, with_uncertainty=False), 100),
        "state and uncertainty": (StateImagination(world, with_uncertainty=True), 20),
        "images": (ImageImagination(world), 5),
    }
    rates: dict[str, list[float]] = {name: [] for name in paths}
    for turn in range(7):
        for name, (path, steps) in paths.items():
            rate = steps_per_second(path, world, args.plans, steps)
            rates[name] += [rate] if turn else []  # the first one warms up
    rows = [[name, f"{np.median(r):,.0f}", f"{min(r):,.0f} to {max(r):,.0f}"] for name, r in rates.items()]
    print(table(["imagined", "steps per second", "range"], rows))


if __name__ == "__main__":
    main()
