"""Improves a policy inside a world: cloned from recordings of PushT, then PPO or SAC in the imagination.

    scd-record env=pusht 'env_kwargs={render_images:false}' \\
        'policy_mixture=[{policy:scripted_pusht,degrade:{noise:5}}]' \\
        max_steps=150 episodes=300 task="Push the T onto the goal" out=data/pushes
    python recipes/rl/pusht.py envs/scd_envs/worlds/pusht data/pushes runs/rl

Each arm of ARMS learns in the world alone; every evaluation plays the same starts there and in the simulator.
Kill it when you like: the same command goes on. <out>/<arm>/evaluations.json holds every episode; the table
and the picture are made of them (table.py).
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cloning import clone, load_clone, save_clone
from improve import improve
from judge import start_states
from learners import Settings
from stable_baselines3 import PPO, SAC
from table import report
from view import BlockView

from scd_datasets.preparation.low_dim import LowDimData, dataset_low_dim
from scd_world.world.world import World

# name: what differs from `Settings`; and whether it begins with the clone
ARMS: dict[str, tuple[dict[str, Any], bool]] = {
    "clone": ({}, True),
    "clone, uncertain ends": ({"max_uncertainty": 0.02}, True),
    "from scratch": ({"log_std": -0.5, "warm_up": 0, "lr": 3e-4, "target_kl": 0.05}, False),
    "clone, SAC": ({"algorithm": "sac", "warm_up": 10}, True),
    "from scratch, SAC": ({"algorithm": "sac", "log_std": -0.5, "warm_up": 0}, False),
}
SUCCESSES = 20  # of recorded episodes, at least, to know the goal from


def read_recording(folder: Path, world: World) -> LowDimData:
    """Reads recorded episodes; ValueError where they do not show a block that is pushed home."""
    if (len(world.schema.agent_pos), len(world.schema.environment_state)) != (2, 16):
        raise ValueError(
            "this recipe pushes PushT's block: its world has agent_pos (2) and environment_state (16); got "
            f"{len(world.schema.agent_pos)} and {len(world.schema.environment_state)}"
        )
    data = dataset_low_dim(folder, world.schema)
    if (found := int(ended_well(data).sum())) < SUCCESSES:
        raise ValueError(
            f"{folder}: {found} of {len(data.lengths)} episodes succeed, which tell where the goal is; "
            f"record {SUCCESSES} or more"
        )
    return data


def ended_well(data: LowDimData) -> np.ndarray:
    """Says of each episode (E,) whether its last step succeeded."""
    return data.success[data.starts + data.lengths - 1]


def make_view(data: LowDimData, world: World) -> BlockView:
    """Makes the policy's view, with the goal where successful episodes end."""
    ends = (data.starts + data.lengths - 1)[ended_well(data)]
    low, high = (np.array(bound, np.float32) for bound in world.schema.action_bounds)
    return BlockView(data.state[ends, 2:], low, high)


def clone_once(file: Path, algorithm: str, data: LowDimData, view: BlockView, demos: int, steps: int) -> None:
    """Clones the first `demos` recorded episodes that succeeded into `file`, if it is not there."""
    if file.exists():
        return
    chosen = data.select(np.flatnonzero(ended_well(data))[:demos])
    last = chosen.prev[:, -chosen.action.shape[1] :].copy()
    last[chosen.starts] = np.nan  # before an episode nothing was done
    seen, answer = view.features(chosen.state, last), view.answer(chosen.state, chosen.action)
    policy, loss = clone(algorithm, seen, answer, steps)
    print(
        f"cloned {len(chosen.lengths)} demonstrations, {len(chosen.state):,} steps: loss {loss:.3f}",
        flush=True,
    )
    save_clone(file, policy)


def learning_starts(data: LowDimData) -> tuple[np.ndarray, np.ndarray]:
    """Gives the addresses (F, 2) of all recorded steps; and those from which episodes begin: half of them at
    an episode's first step, half anywhere, so that rare places near the goal are met early."""
    episode = np.repeat(np.arange(len(data.lengths)), data.lengths)
    frame = np.arange(len(episode)) - data.starts[episode]
    addresses = np.stack([episode, frame], axis=1)
    first = addresses[data.starts]
    return addresses, np.concatenate([addresses, np.tile(first, (len(addresses) // len(first), 1))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("world")
    parser.add_argument("recording", type=Path, help="LeRobotDataset of PushT, with or without images")
    parser.add_argument("out", type=Path)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--demos", type=int, default=300, help="recorded episodes to clone")
    parser.add_argument("--clone-steps", type=int, default=6000)
    parser.add_argument("--steps", type=int, default=Settings.steps, help="imagined, of an arm")
    parser.add_argument("--episodes", type=int, default=Settings.episodes, help="of an evaluation")
    parser.add_argument("--evaluate-every", type=int, default=Settings.evaluate_every, help="updates")
    parser.add_argument("--seed", type=int, default=Settings.seed, help="of the learning, not of the clone")
    parser.add_argument("--figure", type=Path, default=None)
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    world = World.load(args.world)
    data = read_recording(args.recording, world)
    view = make_view(data, world)
    addresses, starts = learning_starts(data)
    inside = replace(world, starts=start_states(world, data.state, data.action, addresses))

    for arm in args.arms:
        own, from_clone = ARMS[arm]
        common = {name: getattr(args, name) for name in ("steps", "episodes", "evaluate_every", "seed")}
        settings = Settings(**common | own)
        cloned = args.out / f"clone_{settings.algorithm}.pt"
        if from_clone:
            clone_once(cloned, settings.algorithm, data, view, args.demos, args.clone_steps)
        print(f"{arm}:", flush=True)

        def begin(model: PPO | SAC, cloned: Path | None = cloned if from_clone else None) -> None:
            if cloned is not None:
                load_clone(cloned, model.policy)

        improve(args.out / arm, inside, starts, view, settings, begin)
    report(args.out, args.figure)


if __name__ == "__main__":
    main()
