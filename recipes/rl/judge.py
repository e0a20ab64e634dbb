"""Judges a policy where it learned and where it counts: the same starts in the world and in the simulator.

A policy that is better in the world than in the simulator has learned the world's mistakes: that gap, on the
same starts, is how far it exploits them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import gymnasium
import numpy as np

from scd_envs import simulators
from scd_envs.simulators.vector import SimulatorVectorEnv
from scd_policies.policy import Policy
from scd_policies.rollout import episodes
from scd_world.world.starts import StartStates
from scd_world.world.world import World

ROWS = 50  # episodes side by side
MAX_STEPS = 200


def start_states(world: World, state: np.ndarray, action: np.ndarray, addresses: np.ndarray) -> StartStates:
    """Makes steps, state (F, S), action (F, A), addresses (F, 2), starts of a world without images."""
    schema = world.schema
    blank = np.broadcast_to(np.uint8(0), (len(state), len(schema.cameras), schema.height, schema.width, 3))
    return StartStates(blank, state, action, addresses)


@lru_cache
def simulator_starts(first_seed: int, count: int) -> np.ndarray:
    """Gives states (count, S) of the simulator's own resets."""
    env, found = simulators.make("pusht", render_images=False), []
    for seed in range(first_seed, first_seed + count):
        obs, _ = env.reset(seed=seed)
        found.append(np.concatenate([obs["agent_pos"], obs["environment_state"]]))
    return np.array(found, np.float32)


def judge(policy: Policy, world: World, first_seed: int, count: int) -> dict[str, list[Any]]:
    """Plays `count` new starts of the simulator, none of them recorded, on both sides.

    Gives success and the highest reward of each episode: `world`, `simulator`, `world_reward`,
    `simulator_reward`, (count,) each.
    """
    state = simulator_starts(first_seed, count)
    addresses = np.stack([np.arange(count), np.zeros(count, int)], axis=1)
    starts = start_states(world, state, np.zeros((count, len(world.schema.action)), np.float32), addresses)
    rows = min(ROWS, count)
    split = len(world.schema.agent_pos)
    sides: dict[str, tuple[Any, list[dict[str, Any]]]] = {
        "world": (
            gymnasium.make_vec(
                "scd_world/World-v0",
                num_envs=rows,
                world=replace(world, starts=starts),
                autoreset_mode="Disabled",
                horizon=MAX_STEPS,
                render_images=False,
                with_uncertainty=False,
            ),
            [{"episode": i, "frame": 0} for i in range(count)],
        ),
        "simulator": (
            SimulatorVectorEnv("pusht", rows, render_images=False, max_episode_steps=MAX_STEPS),
            [{"agent_pos": s[:split], "environment_state": s[split:]} for s in state],
        ),
    }
    found: dict[str, list[Any]] = {}
    for side, (envs, options) in sides.items():
        seeds = range(first_seed, first_seed + count)
        played = list(episodes(envs, policy, seeds, options=options))
        found[side] = [bool(episode.success) for episode in played]
        found[f"{side}_reward"] = [float(episode.reward.max()) for episode in played]
    return found
