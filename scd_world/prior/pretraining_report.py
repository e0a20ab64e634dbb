"""What each lesson before the first window brought, on held-out episodes, beside the simplest rival.

A lesson can fail without a word: its own loss comes down, and what it left draws background alone, or rewards
everything alike. The hours after it would be lost; so it is measured at once, and said loudly where a
constant would do as well.

N held-out steps, F frames, S state, C H W frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scd_world.metrics.image import psnr
from scd_world.prior.dynamics import Body
from scd_world.prior.fit_dynamics import step_loss
from scd_world.prior.fit_outcome import next_states
from scd_world.prior.renderer import Sketch
from scd_world.prior.trajectories import Recorded

ROWS = 20_000  # steps that are looked at, at most
FRAMES = 64


@dataclass(frozen=True)
class Brought:
    """One figure of a lesson, beside that of a rival that had none."""

    figure: str
    value: float
    rival: str
    rival_value: float
    higher_is_better: bool = False

    @property
    def failed(self) -> bool:
        """No better than the rival."""
        sign = 1 if self.higher_is_better else -1
        return not sign * self.value > sign * self.rival_value  # NaN has failed too

    def __str__(self) -> str:
        return f"{self.figure} {self.value:.4g} ({self.rival} {self.rival_value:.4g})"


@torch.no_grad()
def body_brought(body: Body, held: Recorded) -> list[Brought]:
    """The loss of single steps; the rival is the straight line under the network."""
    row, last = held.sequences(1)
    row = some(row[row < last])  # an episode's last action has no next state
    if not len(row):
        return []
    line = body.lawful(body.line(held.before[row], held.state[row], held.act[row]).state)
    true = held.state[row + 1]
    own, rival = (step_loss(body, said - true).item() for said in (next_states(body, held, row), line))
    return [Brought("loss of a step", own, "a straight line", rival)]


@torch.no_grad()
def outcome_brought(body: Body, held: Recorded) -> list[Brought]:
    """Square error of the reward, in model units, and of the probability of success; the rivals say the mean
    everywhere."""
    row = some(held.sequences(1)[0])
    if not len(row):
        return []
    reward, logit = body.worth(next_states(body, held, row))
    pairs = {"reward": (reward, held.rew[row]), "success": (logit.sigmoid(), held.success[row])}
    return [
        Brought(f"square error of {name}", mse(said, true), "the mean", mse(true.mean(), true))
        for name, (said, true) in pairs.items()
        if true.min() < true.max()  # a constant has nothing to be told
    ]


@torch.no_grad()
def sketch_brought(sketch: Sketch, state: Tensor, truth: Tensor) -> list[Brought]:
    """PSNR of frames (F, C, H, W) from their states (F, S); the rival is the background."""
    pictures = sketch(state).clamp(-1, 1), sketch.background.expand_as(truth)
    own, rival = (psnr(picture, truth).mean().item() for picture in pictures)
    return [Brought("PSNR of a frame, dB", own, "the background", rival, higher_is_better=True)]


def some(row: Tensor) -> Tensor:
    """At most ROWS of them, evenly."""
    return row[:: 1 + len(row) // ROWS]


def mse(said: Tensor, true: Tensor) -> float:
    return (said - true).square().mean().item()
