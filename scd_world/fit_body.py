"""Teaches the body (`body.py`) from the recorded states alone, before the world model sees a picture.

Single steps first, as many at a time as can be: where things go is learnt soonest from what was recorded.
Then it is unrolled: what it said is what it goes on from, and it learns not to drift. What a state is worth
is learnt after that (`fit_outcome.py`).

F recorded rows, E episodes, B sequences, U steps of an unroll.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from scd_world.body import Body
from scd_world.config import BodyConfig
from scd_world.lessons import Lesson
from scd_world.optimiser import course, muon_and_adamw


@dataclass(frozen=True)
class Recorded:
    """All rows of the training episodes in model units, one episode after another."""

    state: Tensor  # (F, S)
    before: Tensor  # (F, S + A) state and action one row earlier; at an episode's start at rest
    act: Tensor  # (F, A)
    rew: Tensor  # (F,)
    success: Tensor  # (F,) 0 or 1
    starts: Tensor  # (E,) int, the first row of each episode
    lengths: Tensor  # (E,) int

    def to(self, device: torch.device) -> Recorded:
        return Recorded(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def sequences(self, steps: int) -> tuple[Tensor, Tensor]:
        """First rows (N,) of all sequences of `steps` actions, and their episode's last row (N,).

        An episode's last action has a reward and a success (most successes are there), but no next state.
        """
        counts = (self.lengths - steps + 1).clamp_min(0)
        starts = self.starts.repeat_interleave(counts)
        firsts = torch.cat([torch.arange(int(n)) for n in counts]) if len(counts) else counts
        rows = starts + firsts.to(starts.device)
        last = (self.starts + self.lengths - 1).repeat_interleave(counts)
        return rows, last


def fit_body(
    body: Body,
    recorded: Recorded,
    config: BodyConfig,
    seed: int,
    bf16: bool = False,
    lesson: Lesson | None = None,
) -> Generator[Tensor]:
    """Teaches `body` in place; yields the loss of each update, then leaves the averaged weights in it.

    `config.steps` updates, or as many as the lesson's time allows.
    """
    generator = torch.Generator().manual_seed(seed)
    unroll, singles = config.unroll, recorded.sequences(1)
    while not len((sequences := recorded.sequences(unroll))[0]) and unroll > 1:
        unroll //= 2  # short episodes
    if body.net is None or not len(sequences[0]):
        return

    def loss(progress: float) -> Tensor:
        rows, steps = (singles, 1) if progress <= config.single else (sequences, unroll)
        size = (config.batch_size * unroll // steps, recorded.state.shape[-1])
        level = config.noise * torch.rand(size[0], 1, generator=generator)
        shake = (level * torch.randn(size, generator=generator)).to(recorded.state) * body.line.change
        lot = torch.randint(len(rows[0]), (size[0],), generator=generator)
        row, last = (of[lot.to(of.device)] for of in rows)
        return unrolled_loss(body, recorded, row, last, shake, steps, bf16)

    lesson = lesson or Lesson()
    inner = [p for p in body.net.layers.parameters() if p.ndim == 2]
    optimisers = muon_and_adamw(body.net, inner, config.inner_lr, config.lr, beta2=0.98)
    lesson.begin(body.net, optimisers, generator, ema=0.999)
    yield from lesson.teach(config.steps, lambda progress: course(progress, 0.02, 0.5, 0.01), loss)


def unrolled_loss(
    body: Body, recorded: Recorded, row: Tensor, last: Tensor, shake: Tensor, steps: int, bf16: bool = False
) -> Tensor:
    """Mean over U steps from the recorded state at row (B,), shaken by (B, S), under the recorded actions.

    What is shaken must find back: a hand that is imagined inside a block is pushed out of it again.
    """
    state, before, loss = recorded.state[row] + shake, recorded.before[row], 0.0
    before = before + F.pad(shake, (0, before.shape[-1] - shake.shape[-1]))
    for i in range(steps):
        act = recorded.act[row + i]
        after = body.move(before, state, act, bf16).state
        known = (row + i < last)[:, None]
        loss = loss + step_loss(body, known * (after - recorded.state[torch.minimum(row + i + 1, last)]))
        before, state = torch.cat([state, act], dim=-1), after
    return loss / steps


def step_loss(body: Body, error: Tensor) -> Tensor:
    """Of errors of the next state (B, S) in model units, the mean. As in the world model's loss: mostly
    absolute, so that what is not pushed stays still."""
    error = error / body.line.rest
    return F.smooth_l1_loss(error, torch.zeros_like(error), beta=0.1)
