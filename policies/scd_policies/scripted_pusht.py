"""A scripted pusher for PushT that knows the block's pose, with a dial from expert to hopeless."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium
import numpy as np

from scd_policies import pusht_geometry
from scd_policies.policy import bounded_box, check_batch, generators

GOAL_ANGLE = np.pi / 4
GOAL_ORIGIN = np.array([256.0, 256.0])
CONTACTS = pusht_geometry.contact_points()
SIZES = {"agent_pos": 2, "environment_state": 16}  # the agent's place; eight keypoints of the block

LINE_UP = 6.0  # px between disc and block where a push begins
HOLD, LOSE = 4.0, 15.0  # px along the edge: on the contact, off it again
WORTH = 0.4  # px: a push that brings less is over
AHEAD = pusht_geometry.KEYPOINTS + pusht_geometry.keypoint_displacement(
    10.0 * CONTACTS.unit
)  # the corners after a push of 10 px, per contact
REACH = 40.0  # px: how deep into the block a push aims at once
WALL = 8.0  # px: the block's corners stay this far from the picture's border

# What a skill of 0 does: its hand shakes, and it takes another place for the goal.
SHAKE, SHAKE_KEEPS = 27.0, 0.8  # px per axis, standard deviation; the part kept from step to step
MISTAKE = 18.0  # px at most, a fifth of it at least, an angle counted as px / RADIUS; one draw per episode


@dataclass
class _EpisodeMemory:
    """What one episode remembers."""

    rng: np.random.Generator
    mistake: np.ndarray  # (3,) the twist from the goal to what it takes for the goal
    shake: np.ndarray  # (2,) px: how its hand is off
    contact: int | None = None
    pushing: bool = False


@dataclass(frozen=True)
class _BlockView:
    """One moment as the block sees it: positions in the block's frame, px."""

    centre: np.ndarray  # (2,) the block's centre of gravity in the picture
    turn: np.ndarray  # (2, 2) block's frame -> picture
    agent: np.ndarray  # (2,)
    wanted: np.ndarray  # (3,) the twist that brings the block home

    def picture(self, points: np.ndarray) -> np.ndarray:
        return self.centre + points @ self.turn.T

    def inside(self, points: np.ndarray, border: float) -> np.ndarray:
        """(…, 2) -> (…) whether points are at least `border` px inside the picture."""
        picture = self.picture(points)
        return ((picture >= border) & (picture <= 512 - border)).all(-1)


class ScriptedPushT:
    """Chooses a contact, walks round the block to it, pushes along its normal, and looks again.

    Below `skill` 1 its hand shakes and it misjudges the goal, the more the less skill. Success within 300
    steps at skill 1, .8, .6, .4, .2, 0: 100, 100, 64, 20, 6, 2 %, over 50 episodes each (100 at skill 1)
    from seed 50000 on, which were not used to set its constants.
    """

    def __init__(self, action_space: gymnasium.Space, skill: float = 1.0) -> None:
        if not 0 <= skill <= 1:
            raise ValueError(f"skill is a number from 0 to 1, got {skill}")
        self._box = bounded_box(action_space)
        self._clumsy = 1.0 - skill
        self._rows: list[_EpisodeMemory] = []

    def reset(self, seeds: Sequence[int]) -> None:
        self._rows = [
            _EpisodeMemory(
                rng,
                mistake=self._clumsy**1.5 * MISTAKE * _short_twist(rng),
                shake=self._clumsy * SHAKE * rng.standard_normal(2),
            )
            for rng in generators(seeds)
        ]

    def act(self, obs: dict[str, np.ndarray]) -> np.ndarray:
        missing = {"agent_pos", "environment_state"} - set(obs)
        if missing:
            raise ValueError(f"the scripted pusher needs {sorted(missing)}; observed are {sorted(obs)}")
        check_batch(obs, len(self._rows))
        sizes = {key: obs[key].shape[-1] for key in ("agent_pos", "environment_state")}
        if sizes != SIZES:
            raise ValueError(f"the scripted pusher reads PushT's numbers, {SIZES}; observed are {sizes}")
        agents = obs["agent_pos"].astype(np.float64)
        keypoints = obs["environment_state"].astype(np.float64).reshape(-1, 8, 2)
        targets = [self._target(*each) for each in zip(self._rows, agents, keypoints, strict=True)]
        return np.clip(np.stack(targets), self._box.low, self._box.high).astype(self._box.dtype)

    def _target(self, row: _EpisodeMemory, agent: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
        scene = _look(agent, keypoints, row.mistake)
        useful = _useful(scene)
        if row.contact is None or not useful[row.contact]:
            row.contact, row.pushing = _choose(scene, useful), False
        kick = np.sqrt(1 - SHAKE_KEEPS**2) * self._clumsy * SHAKE
        row.shake = SHAKE_KEEPS * row.shake + kick * row.rng.standard_normal(2)
        return scene.picture(_push_or_walk(row, scene)) + row.shake


def _short_twist(rng: np.random.Generator) -> np.ndarray:
    """(3,) any direction, length even in [.2, 1]."""
    direction = rng.standard_normal(3)
    return rng.uniform(0.2, 1) * direction / np.linalg.norm(direction)


def _look(agent: np.ndarray, keypoints: np.ndarray, mistake: np.ndarray) -> _BlockView:
    """The scene of agent (2,) and keypoints (8, 2): a least-squares rigid fit, in complex numbers."""
    z, m = keypoints @ (1, 1j), pusht_geometry.KEYPOINTS @ (1, 1j)
    turn = ((z - z.mean()) * (m - m.mean()).conj()).sum()
    turn /= abs(turn)
    centre = z.mean() - turn * m.mean()
    goal_turn = np.exp(1j * GOAL_ANGLE)
    goal = GOAL_ORIGIN @ (1, 1j) + goal_turn * (pusht_geometry.CENTRE @ (1, 1j)) + mistake[:2] @ (1, 1j)
    shift = (goal - centre) * turn.conj()
    # Its argument lies in (-π, π]: the shorter way round.
    angle = np.angle(goal_turn * np.exp(1j * mistake[2] / pusht_geometry.RADIUS) * turn.conj())
    here = (agent @ (1, 1j) - centre) * turn.conj()
    return _BlockView(
        centre=np.array([centre.real, centre.imag]),
        turn=np.array([[turn.real, -turn.imag], [turn.imag, turn.real]]),
        agent=np.array([here.real, here.imag]),
        wanted=np.array([shift.real, shift.imag, pusht_geometry.RADIUS * angle]),
    )


def _useful(scene: _BlockView) -> np.ndarray:
    """(N,) whether a push at each contact brings the block nearer home and no corner into a wall."""
    depth = CONTACTS.twist @ scene.wanted
    return (depth > WORTH) & scene.inside(AHEAD, WALL).all(-1)


def _choose(scene: _BlockView, useful: np.ndarray) -> int | None:
    """The contact that brings the block nearest home per time, the way there included; None: nothing does."""
    amount = np.maximum(CONTACTS.unit @ scene.wanted, 0)
    if amount.max() < WORTH:
        return None
    error = np.linalg.norm(scene.wanted)
    left = np.sqrt(np.maximum(error**2 - amount**2, 0))
    gain = np.log((error + 1) / (left + 1))
    stands = CONTACTS.disc(LINE_UP)
    length = pusht_geometry.shortest_path(scene.agent, stands, scene.inside(pusht_geometry.WAYPOINTS, 0))[1]
    steps = 6 + length / 40 + amount / 30
    rate = np.where(scene.inside(stands, 0), gain / steps, 0)
    # With a wall behind every good contact, a bad push is better than none.
    return int(np.argmax(rate * useful if (rate * useful).any() else rate))


def _push_or_walk(row: _EpisodeMemory, scene: _BlockView) -> np.ndarray:
    """The disc's next target in the block's frame."""
    if row.contact is None:
        return scene.agent
    point, normal = CONTACTS.point[row.contact], CONTACTS.normal[row.contact]
    offset = scene.agent - point
    gap, aside = offset @ normal - pusht_geometry.DISC, abs(offset @ normal[::-1])
    row.pushing = -6 < gap < LINE_UP + 3 and aside < (LOSE if row.pushing else HOLD)
    if row.pushing:
        depth = min(CONTACTS.twist[row.contact] @ scene.wanted, REACH)
        return point + (pusht_geometry.DISC - depth) * normal
    stand = CONTACTS.disc(LINE_UP)[row.contact]
    return pusht_geometry.shortest_path(scene.agent, stand[None], scene.inside(pusht_geometry.WAYPOINTS, 0))[
        0
    ][0]
