"""Teaches the body (`body.py`) from the recorded states alone, before the world model sees a picture.

Single steps first, as many at a time as can be: where things go is learnt soonest from what was recorded.
Then it is unrolled: what it said is what it goes on from, and it learns not to drift. What a state is worth
is learnt after that (`fit_outcome.py`).

F recorded rows, E episodes, B sequences, U steps of an unroll.
"""

from __future__ import annotations

from collections.abc import Generator

import torch
import torch.nn.functional as F
from torch import Tensor

from scd_world.optim.optimizer import muon_and_adamw
from scd_world.optim.schedule import course
from scd_world.prior.config import BodyConfig
from scd_world.prior.dynamics import Body
from scd_world.prior.pretraining import Lesson
from scd_world.prior.trajectories import Recorded


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
