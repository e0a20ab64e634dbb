"""What was played since a start: every moment as it was seen, and here and there the whole environment.

Rewinding is looking at an earlier moment; going on from there needs the environment as it was, which is a
saved state and the actions since: a world imagines the same again, to the bit. So few states are kept,
however long an episode becomes.

V cameras, A action size, S state size.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from scd_envs.env_state import EnvState

MOST_STATES = 32  # kept of an episode; between two of them lie as many steps as that takes


@dataclass(frozen=True)
class Truth:
    """What a simulator says of a moment."""

    pictures: tuple[bytes, ...]  # PNG, one for each camera that it has
    reward: float
    success: bool
    over: bool  # it ended the episode, here or earlier


@dataclass(frozen=True)
class Moment:
    """One frame as it was seen, and how it came about."""

    pictures: tuple[bytes, ...]  # PNG, V of them
    state: np.ndarray  # (S,) raw units
    reward: float = 0.0  # of the step that led here
    scalars: dict[str, float] = field(default_factory=dict)  # success_probability, uncertainty: what there is
    success: bool = False
    terminated: bool = False
    truncated: bool = False
    action: np.ndarray | None = None  # (A,) that led here, as the world took it; None: the start
    driver: str | None = None  # who chose it
    num_steps: int | None = None  # denoising steps that it was imagined with
    truth: Truth | None = None

    @property
    def over(self) -> bool:
        return self.terminated or self.truncated


@dataclass(frozen=True)
class Address:
    """Says where an episode began."""

    episode: int
    frame: int
    seed: int
    task: str | None  # in words


class Tape:
    """Holds the moments of one episode, the first being its recorded start."""

    def __init__(self, address: Address, moment: Moment, state: EnvState) -> None:
        self.address = address
        self.moments = [moment]
        self.states = {0: state}
        self.stride = 1  # steps between kept states
        self.kept = 0  # steps of this episode that the dataset has

    def __len__(self) -> int:
        """Counts the steps that were taken."""
        return len(self.moments) - 1

    @property
    def total_reward(self) -> float:
        return sum(moment.reward for moment in self.moments)

    def add(self, moment: Moment, state: EnvState | None) -> None:
        """Adds a moment, with the environment as it is there where `wants_state` asked for it."""
        self.moments.append(moment)
        if state is not None:
            self.states[len(self)] = state
            if len(self.states) > MOST_STATES:
                self.stride *= 2
                self.states = {step: s for step, s in self.states.items() if step % self.stride == 0}

    def wants_state(self) -> bool:
        """Says whether the next moment is one at which the environment is kept."""
        return (len(self) + 1) % self.stride == 0

    def state_before(self, step: int) -> tuple[int, EnvState]:
        """Gives the last kept state at or before a step, and its step."""
        last = max(kept for kept in self.states if kept <= step)
        return last, self.states[last]

    def branch(self, step: int) -> Tape:
        """Gives a tape of the same beginning, up to a step; what is added to one is not in the other."""
        other = Tape(self.address, self.moments[0], self.states[0])
        other.moments = self.moments[: step + 1]
        other.states = {kept: state for kept, state in self.states.items() if kept <= step}
        other.stride = self.stride
        other.kept = min(step, self.kept)
        return other
