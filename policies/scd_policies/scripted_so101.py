"""A scripted SO-101 that sees where the block is, with a skill from expert to hopeless."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import gymnasium
import numpy as np

from scd_policies.policy import bounded_box, check_batch, generators, into_box, lack_of_skill
from scd_policies.so101_kinematics import fingertips, joints_above

# The joints; the block's position alone, or with its quaternion.
SIZES = {"agent_pos": (6,), "environment_state": (3, 7)}

# Heights of the point between the fingertips, above the block's center; m.
HOVER, GRASP, RAISED = 0.045, 0.008, 0.16
ASIDE = np.array([0.0, -0.005, 0.0])  # m: the jaw that does not move passes the block at this distance
NEAR = 0.008  # m: a waypoint is reached
STEP = 0.025  # m per step at most; SLOW in the block's reach
SLOW = 0.012
PATIENCE = 16  # steps after which a waypoint is given up, reached or not
OPEN, CLOSED = 60.0, 0.0  # %, of the gripper
CLOSING = 4  # steps
LEAN_BACK = 7.0  # degrees per step, of the shoulder
TURN = 12.0  # degrees per step, of any joint
# Gravity leaves the servos short of their targets: this share of what is missing is added at every step.
SAG_GAIN, SAG_STEP, SAG_MOST = 0.3, 1.0, 12.0  # a share; degrees, per step and in all

# At a skill of 0 it misjudges where the block is, and its hand shakes.
BLOCK_ERROR = 0.05  # m at most, a fifth of it at least; one per episode
NOISE_STD, NOISE_KEPT = 0.03, 0.8  # m per axis, standard deviation; the part kept from step to step

Phase = Literal["hover", "descend", "close", "lift"]


@dataclass
class _EpisodeMemory:
    """Keeps what one episode remembers."""

    rng: np.random.Generator
    block_error: np.ndarray  # (3,) m
    noise: np.ndarray  # (3,) m
    phase: Phase = "hover"
    steps: int = 0  # in this phase
    block: np.ndarray = field(default_factory=lambda: np.zeros(3))
    aim: np.ndarray | None = None  # (3,) the waypoint on the way
    sag: np.ndarray = field(default_factory=lambda: np.zeros(4))  # degrees, added to the arm's targets
    joints: np.ndarray = field(default_factory=lambda: np.zeros(5))  # the last targets, without it


class ScriptedSO101:
    """Moves above the block, descends, closes the gripper and leans back until the block hangs in the air.

    Where the block is, it looks up to the descent, and then remembers. Below `skill` 1 it misjudges that, and
    its hand shakes, the more the less skill. Success within 50 steps at skill 1, .8, .6, .4, .2, 0: 100, 90,
    54, 22, 4, 4 %, over 50 episodes each from seed 50000 on. Actions and `agent_pos` are as LeRobot has
    them: degrees, and % of the gripper. It needs no simulator: it acts in a world without MuJoCo, too.
    """

    def __init__(self, action_space: gymnasium.Space, skill: float = 1.0) -> None:
        self._unskilled = lack_of_skill(skill)
        self._box = bounded_box(action_space)
        if self._box.shape != (6,):
            raise ValueError(
                f"the scripted SO-101 moves six joints; actions have {self._box.shape[0]} numbers"
            )
        self._rows: list[_EpisodeMemory] = []

    def reset(self, seeds: Sequence[int]) -> None:
        self._rows = [
            _EpisodeMemory(
                rng,
                block_error=self._unskilled**1.5 * BLOCK_ERROR * _short_shift(rng),
                noise=self._unskilled * NOISE_STD * rng.standard_normal(3),
            )
            for rng in generators(seeds)
        ]

    def act(self, obs: dict[str, Any]) -> np.ndarray:
        sizes = {key: obs[key].shape[-1] for key in SIZES if key in obs}
        if any(sizes.get(key) not in fitting for key, fitting in SIZES.items()):
            raise ValueError(f"the scripted SO-101 reads a state of sizes {SIZES}; observed are {sizes}")
        check_batch(obs, len(self._rows))
        joints = obs["agent_pos"].astype(np.float64)
        blocks = obs["environment_state"][:, :3].astype(np.float64)
        targets = [self._target(*row) for row in zip(self._rows, joints, blocks, strict=True)]
        return into_box(targets, self._box)

    def _target(self, row: _EpisodeMemory, joints: np.ndarray, block: np.ndarray) -> np.ndarray:
        kick = np.sqrt(1 - NOISE_KEPT**2) * self._unskilled * NOISE_STD
        row.noise = NOISE_KEPT * row.noise + kick * row.rng.standard_normal(3)
        at = fingertips(joints)
        if row.aim is None:
            row.aim, row.joints = at, joints[:5].copy()
        if row.phase == "hover":
            row.block = block + row.block_error
        _advance(row, at)
        row.steps += 1
        missing = np.clip(SAG_GAIN * (row.joints[:4] - joints[:4]), -SAG_STEP, SAG_STEP)
        row.sag = np.clip(row.sag + missing, -SAG_MOST, SAG_MOST)
        if row.phase == "lift":
            lifted = at[2] >= row.block[2] + RAISED
            row.joints[1] -= 0 if lifted else LEAN_BACK
        else:
            away = _waypoint(row) - row.aim
            most = STEP if row.phase == "hover" else SLOW
            row.aim = row.aim + away * min(1.0, most / max(float(np.linalg.norm(away)), 1e-9))
            row.joints = row.joints + np.clip(joints_above(row.aim + row.noise) - row.joints, -TURN, TURN)
        gripper = CLOSED if row.phase in ("close", "lift") else OPEN
        return np.array([*(row.joints[:4] + row.sag), row.joints[4], gripper])


def _waypoint(row: _EpisodeMemory) -> np.ndarray:
    """Gives where the point between the fingertips is to go (3,)."""
    height = HOVER if row.phase == "hover" else GRASP
    return row.block + ASIDE + np.array([0, 0, height])


def _advance(row: _EpisodeMemory, at: np.ndarray) -> None:
    """Goes on to the next phase where this one is done, or has taken too long."""
    if row.phase == "close":
        done = row.steps >= CLOSING
    elif row.phase == "lift":
        done = False
    else:
        done = float(np.linalg.norm(_waypoint(row) - at)) < NEAR or row.steps >= PATIENCE
    if done:
        following: dict[Phase, Phase] = {"hover": "descend", "descend": "close", "close": "lift"}
        row.phase, row.steps = following[row.phase], 0


def _short_shift(rng: np.random.Generator) -> np.ndarray:
    """Samples (3,): any direction on the table, its length uniform in [.2, 1]."""
    angle = rng.uniform(0, 2 * np.pi)
    return rng.uniform(0.2, 1) * np.array([np.cos(angle), np.sin(angle), 0.0])
