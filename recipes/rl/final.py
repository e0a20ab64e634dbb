"""Judges the clone and what every arm of pusht.py has learned on starts that no evaluation has played.

    python recipes/rl/final.py envs/scd_envs/worlds/pusht data/pushes runs/rl

The evaluations along the way are seen by whoever stops a run or picks settings; these starts are not.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from actor import ViewPolicy
from cloning import load_clone
from judge import judge
from learners import Settings, from_bytes, make_policy
from pusht import make_view, read_recording
from stable_baselines3.common.policies import BasePolicy
from table import HEAD, row

from scd_world.reporting.tables import table
from scd_world.world.world import World

FIRST_SEED = 90_000


def learned(out: Path) -> dict[str, tuple[BasePolicy, dict[str, Any]]]:
    """Gives the clones and each arm's policy, with the steps and the processor time that it took."""
    found: dict[str, tuple[BasePolicy, dict[str, Any]]] = {}
    for file in sorted(out.glob("clone_*.pt")):
        load_clone(file, policy := make_policy(algorithm := file.stem.removeprefix("clone_")))
        found[clone_of(algorithm)] = policy, {"steps": 0, "cpu_seconds": 0.0, "algorithm": algorithm}
    for file in sorted(out.glob("*/checkpoint.pt")):
        held = torch.load(file, weights_only=False)  # one's own: it is read as code, as every pickle is
        settings = Settings(**held["settings"])
        model = from_bytes(held, settings)
        spent = {"steps": model.num_timesteps, "cpu_seconds": held["spent"]["cpu_seconds"]}
        found[file.parent.name] = model.policy, spent | {"algorithm": settings.algorithm}
    return found


def clone_of(algorithm: str) -> str:
    return f"the clone, {algorithm}"


def beginning(judged: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    """Gives what an arm's gain is counted from: its own learner's clone; itself where none was cloned."""
    return judged.get(clone_of(judged[name]["algorithm"]), judged[name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("world")
    parser.add_argument("recording", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--episodes", type=int, default=200)
    args = parser.parse_args()
    torch.set_num_threads(1)
    world = World.load(args.world)
    view = make_view(read_recording(args.recording, world), world)
    judged = {}
    for name, (actor, spent) in learned(args.out).items():
        judged[name] = judge(ViewPolicy(actor, view), world, FIRST_SEED, args.episodes) | spent
        (args.out / "final.json").write_text(json.dumps(judged))
        print(row(name, judged[name], beginning(judged, name)), flush=True)
    print(table(HEAD, [row(name, one, beginning(judged, name)) for name, one in judged.items()]))


if __name__ == "__main__":
    main()
