"""Fits what a spread of copies (`doubt.py`) means: how far the body strays from recordings, unrolled."""

from __future__ import annotations

import torch
from torch import Tensor

from scd_world.body import Body
from scd_world.doubt import FLOOR, Doubt
from scd_world.fit_body import Recorded


@torch.no_grad()
def fit_doubt(
    doubt: Doubt, body: Body, recorded: Recorded, seed: int, windows: int = 256, steps: int = 48
) -> None:
    """Sets `doubt.line` by least squares over all steps of `windows` unrolled recordings."""
    while not len((sequences := recorded.sequences(steps + 1))[0]) and steps > 1:
        steps //= 2  # short episodes
    if not len(sequences[0]):
        return
    g = torch.Generator().manual_seed(seed)
    lot = torch.randint(len(sequences[0]), (windows,), generator=g)
    row, _ = (rows[lot.to(rows.device)] for rows in sequences)
    spread, error = (x.flatten() for x in stray(doubt, body, recorded, row, steps))
    x, y = (spread + FLOOR).log().double(), (error + FLOOR).log().double()
    slope = ((x - x.mean()) * (y - y.mean())).mean() / (x - x.mean()).square().mean().clamp_min(1e-12)
    said = (slope * x).exp()
    # Not the mean of the logarithms: what is said is the mean error, to which few large ones add most.
    offset = (error.double().mean() / said.mean()).clamp_min(1e-12).log()
    doubt.line.copy_(torch.stack([offset, slope]))


def stray(doubt: Doubt, body: Body, recorded: Recorded, row: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Spread and true error (N, steps), model units, of unrolls from the recorded states at row (N,)."""
    before, state = recorded.before[row], recorded.state[row]
    copies, spreads, errors = doubt.begin(before, state), [], []
    for i in range(steps):
        act, age = recorded.act[row + i], torch.full_like(row, i)
        before, state = torch.cat([state, act], dim=-1), body.move(before, state, act).state
        copies = doubt.step(body, copies, act, age)
        spreads.append(doubt.spread(copies))
        errors.append((state - recorded.state[row + i + 1]).square().mean(-1).sqrt())
    return torch.stack(spreads, dim=1), torch.stack(errors, dim=1)
