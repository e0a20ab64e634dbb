"""The policies of a ranking in MuJoCo, from the starts that scd-rank takes in a world: a file for labels=.

    python recipes/so101/simulate.py data/so101 runs/so101/train/world recipes/so101/policies.yaml sim.csv

A world of cameras and joints does not know where the block lies, so scd-rank cannot set the simulator up by
it. The seed of the recorded episode can: it lies in the recording's notes, and gives the same first moment.
So episode i of the file begins as the ranking's i-th start does. Policies that the file has are kept.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import torch

from scd_envs import simulators
from scd_envs.spaces import action_space
from scd_policies.rollout import episodes
from scd_world.ranking.config import read_policies
from scd_world.ranking.play import build, choose_starts
from scd_world.world.world import World

CAMERAS = ("front",)  # as recorded
FIELDS = ("policy", "episode", "success", "steps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("data", "world", "policies", "out"):
        parser.add_argument(name)
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--max-steps", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    world, out = World.load(args.world, device="cpu"), Path(args.out)
    starts = choose_starts(world, args.episodes, seed=0)
    notes = json.loads((Path(args.data) / "meta/recording.json").read_text(encoding="utf-8"))["episodes"]
    first = [notes[start.episode]["seed"] for start in starts]
    env = simulators.make(
        "so101", size=world.schema.height, cameras=CAMERAS, max_episode_steps=args.max_steps
    )
    rows = list(csv.DictReader(out.open(encoding="utf-8"))) if out.exists() else []
    space = action_space(world.schema)  # as in the world: what was recorded
    for entry in read_policies(args.policies):
        if entry.name in {row["policy"] for row in rows}:
            continue
        policy = build(entry, space, env.metadata)
        played = episodes(env, policy, first, policy_seeds=[start.seed for start in starts])
        rows += [
            {"policy": entry.name, "episode": i, "success": int(one.success), "steps": len(one)}
            for i, one in enumerate(played)
        ]
        done = [int(row["success"]) for row in rows if row["policy"] == entry.name]
        print(f"{entry.name}: {np.sum(done)} of {len(done)}", flush=True)
        with out.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
