"""A scripted pusher for PushT that reads the block's pose, with a skill from expert to hopeless."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from scd_policies import pusht_geometry
from scd_policies.policy import bounded_box, check_batch, generators, into_box, lack_of_skill
from scd_world.utils.rigid_fit import rigid_fit

GOAL_ANGLE = np.pi / 4
GOAL_ORIGIN = np.array([256.0, 256.0])
CONTACTS = pusht_geometry.contact_points()
SIZES = {"agent_pos": 2, "environment_state": 16}  # the agent's position; eight keypoints of the block

LINE_UP = 6.0  # px between disc and block where a push begins
HOLD, LOSE = 4.0, 15.0  # px along the edge: on the contact, off it again
MIN_GAIN = 0.4  # px: a push that brings less is over
AHEAD = pusht_geometry.KEYPOINTS + pusht_geometry.keypoint_displacement(
    10.0 * CONTACTS.unit
)  # the corners after a push of 10 px, per contact
REACH = 40.0  # px: how deep into the block a push aims at once
WALL = 8.0  # px: the block's corners stay this far from the image's border

# At a skill of 0 its actions are noisy, and it aims at a wrong goal.
NOISE_STD, NOISE_KEPT = 27.0, 0.8  # px per axis, standard deviation; the part kept from step to step
GOAL_ERROR = 18.0  # px at most, a fifth of it at least, an angle counted as px / RADIUS; one per episode


@dataclass
class _EpisodeMemory:
    """Keeps what one episode remembers."""

    rng: np.random.Generator
    goal_error: np.ndarray  # (3,) the twist from the goal to the one it aims at
    noise: np.ndarray  # (2,) px, on the action
    contact: int | None = None
    pushing: bool = False


@dataclass(frozen=True)
class _BlockView:
    """Gives a frame in the block's own frame of reference, px."""

    center: np.ndarray  # (2,) the block's center of gravity in the image
    turn: np.ndarray  # (2, 2) block's frame -> image
    agent: np.ndarray  # (2,)
    wanted: np.ndarray  # (3,) the twist that brings the block to the goal

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """Gives points (…, 2) of the block's frame in the image."""
        return self.center + points @ self.turn.T

    def inside(self, points: np.ndarray, border: float) -> np.ndarray:
        """Says, for points (…, 2), whether they are at least `border` px inside the image: (…)."""
        image = self.to_image(points)
        return np.all((image >= border) & (image <= 512 - border), axis=-1)


class ScriptedPushT:
    """Chooses a contact, moves around the block to it, pushes along its normal, and looks again.

    Below `skill` 1 its actions are noisy and it misjudges the goal, the more the less skill. Success within
    300 steps at skill 1, .8, .6, .4, .2, 0: 100, 100, 64, 20, 6, 2 %, over 50 episodes each (100 at skill 1)
    from seed 50000 on, which were not used to set its constants.
    """

    def __init__(self, action_space: gymnasium.Space, skill: float = 1.0) -> None:
        self._unskilled = lack_of_skill(skill)
        self._box = bounded_box(action_space)
        self._rows: list[_EpisodeMemory] = []

    def reset(self, seeds: Sequence[int]) -> None:
        self._rows = [
            _EpisodeMemory(
                rng,
                goal_error=self._unskilled**1.5 * GOAL_ERROR * _short_twist(rng),
                noise=self._unskilled * NOISE_STD * rng.standard_normal(2),
            )
            for rng in generators(seeds)
        ]

    def act(self, obs: dict[str, Any]) -> np.ndarray:
        missing = {"agent_pos", "environment_state"} - set(obs)
        if missing:
            raise ValueError(f"the scripted pusher needs {sorted(missing)}; observed are {sorted(obs)}")
        check_batch(obs, len(self._rows))
        sizes = {key: obs[key].shape[-1] for key in ("agent_pos", "environment_state")}
        if sizes != SIZES:
            raise ValueError(
                f"the scripted pusher reads PushT's state, of sizes {SIZES}; observed are {sizes}"
            )
        agents = obs["agent_pos"].astype(np.float64)
        keypoints = obs["environment_state"].astype(np.float64).reshape(-1, 8, 2)
        targets = [
            self._target(row, agent, points)
            for row, agent, points in zip(self._rows, agents, keypoints, strict=True)
        ]
        return into_box(targets, self._box)

    def _target(self, row: _EpisodeMemory, agent: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
        view = _view(agent, keypoints, row.goal_error)
        useful = _useful(view)
        if row.contact is None or not useful[row.contact]:
            row.contact, row.pushing = _choose(view, useful), False
        kick = np.sqrt(1 - NOISE_KEPT**2) * self._unskilled * NOISE_STD
        row.noise = NOISE_KEPT * row.noise + kick * row.rng.standard_normal(2)
        return view.to_image(_push_or_move(row, view)) + row.noise


def _short_twist(rng: np.random.Generator) -> np.ndarray:
    """Samples (3,): any direction, its length uniform in [.2, 1]."""
    direction = rng.standard_normal(3)
    return rng.uniform(0.2, 1) * direction / np.linalg.norm(direction)


def _view(agent: np.ndarray, keypoints: np.ndarray, goal_error: np.ndarray) -> _BlockView:
    """Gives the block's view of agent (2,) and keypoints (8, 2), px, in complex numbers."""
    z, m = keypoints @ (1, 1j), pusht_geometry.KEYPOINTS @ (1, 1j)
    centroid, turn = rigid_fit(z, m - m.mean())
    center = centroid - turn * m.mean()
    goal_turn = np.exp(1j * GOAL_ANGLE)
    goal = GOAL_ORIGIN @ (1, 1j) + goal_turn * (pusht_geometry.CENTER @ (1, 1j)) + goal_error[:2] @ (1, 1j)
    shift = (goal - center) * turn.conj()
    # Its argument lies in (-π, π]: the shorter way around.
    angle = np.angle(goal_turn * np.exp(1j * goal_error[2] / pusht_geometry.RADIUS) * turn.conj())
    position = (agent @ (1, 1j) - center) * turn.conj()
    return _BlockView(
        center=np.array([center.real, center.imag]),
        turn=np.array([[turn.real, -turn.imag], [turn.imag, turn.real]]),
        agent=np.array([position.real, position.imag]),
        wanted=np.array([shift.real, shift.imag, pusht_geometry.RADIUS * angle]),
    )


def _useful(view: _BlockView) -> np.ndarray:
    """Says, for N contacts, whether a push brings the block nearer the goal and no corner into a wall."""
    depth = CONTACTS.twist @ view.wanted
    return (depth > MIN_GAIN) & view.inside(AHEAD, WALL).all(-1)


def _choose(view: _BlockView, useful: np.ndarray) -> int | None:
    """Chooses the contact that gains most per time, the way there included; None: nothing gains."""
    amount = np.maximum(CONTACTS.unit @ view.wanted, 0)
    if amount.max() < MIN_GAIN:
        return None
    error = np.linalg.norm(view.wanted)
    remaining = np.sqrt(np.maximum(error**2 - amount**2, 0))
    gain = np.log((error + 1) / (remaining + 1))
    stands = CONTACTS.disc(LINE_UP)
    open_waypoints = view.inside(pusht_geometry.WAYPOINTS, 0)
    _, length = pusht_geometry.shortest_path(view.agent, stands, open_waypoints)
    steps = 6 + length / 40 + amount / 30
    rate = np.where(view.inside(stands, 0), gain / steps, 0)
    # With a wall behind every good contact, a bad push is better than none.
    return int(np.argmax(rate * useful if (rate * useful).any() else rate))


def _push_or_move(row: _EpisodeMemory, view: _BlockView) -> np.ndarray:
    """Gives the disc's next target (2,) in the block's frame."""
    if row.contact is None:
        return view.agent
    point, normal = CONTACTS.point[row.contact], CONTACTS.normal[row.contact]
    offset = view.agent - point
    gap, aside = offset @ normal - pusht_geometry.DISC, abs(offset @ normal[::-1])
    row.pushing = -6 < gap < LINE_UP + 3 and aside < (LOSE if row.pushing else HOLD)
    if row.pushing:
        depth = min(CONTACTS.twist[row.contact] @ view.wanted, REACH)
        return point + (pusht_geometry.DISC - depth) * normal
    stand = CONTACTS.disc(LINE_UP)[row.contact]
    open_waypoints = view.inside(pusht_geometry.WAYPOINTS, 0)
    places, _ = pusht_geometry.shortest_path(view.agent, stand[None], open_waypoints)
    return places[0]
