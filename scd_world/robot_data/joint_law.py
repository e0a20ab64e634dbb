"""How a joint follows its own command: found in recordings, and fitted to them in closed form.

A joint under position or velocity control goes where its own command sends it; what hangs on it, the places
of the others tell. A regression on all that was recorded says more than that: two joints that were always
moved together each get a part of the other's command, and whoever moves one of them alone sees the other
move, too (causal confusion; de Haan et al., 2019). So a number of the state whose own command tells about as
much of its next change as everything does is taken for a joint, and no other command moves it.

Fifths of the rows are left out in turn, in stretches (episodes come one after another): what a law is worth
is its error there. x (R, p): `linear_fit.linear_inputs`; y (R, S): changes, in units of the usual one.
S state, A action, J joints.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from scd_world.robot_data.linear_fit import LITTLE, SMALLEST_CHANGE, linear_inputs

FOLDS, STRETCHES = 5, 10  # parts of the rows, each of as many stretches, taken from all of the recordings
FEWEST_ROWS = 100  # fewer tell nothing
AS_GOOD = 1.5  # times the square error that all of state and action leave, a law of its own may leave
NEGLIGIBLE = 0.01  # share of the square of what it moves: it may leave so much more in any case
WAVES = 100  # features of what is not linear
MOST_ROWS = 50_000  # are looked at
TELLS = 0.98  # times the one that is left without a command: it must be known for something
STRENGTHS = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 1e9)  # of what holds the other joints' part small


class Moments(NamedTuple):
    """All that a ridge regression has to know of its rows."""

    xx: Tensor  # (p, p)
    xy: Tensor  # (p, S)
    yy: Tensor  # (S,)
    rows: int

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> Moments:
        return cls(x.T @ x, x.T @ y, y.square().sum(0), len(x))

    def without(self, part: Moments) -> Moments:
        return Moments(self.xx - part.xx, self.xy - part.xy, self.yy - part.yy, self.rows - part.rows)

    def solve(self, inputs: Tensor, target: Tensor, penalty: Tensor) -> Tensor:
        """Fits n laws: inputs (n, q), which columns of x each has; target (n,), the column of y; penalty (n,
        q) → weights (n, q)."""
        little = penalty + LITTLE * (self.rows + 1)
        products = self.xx[inputs[:, :, None], inputs[:, None, :]] + torch.diag_embed(little)
        return torch.linalg.solve(products, self.xy[inputs, target[:, None]][..., None])[..., 0]

    def error(self, inputs: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Gives (n,) the mean square error of n laws on these rows."""
        products = self.xx[inputs[:, :, None], inputs[:, None, :]]
        explained = 2 * (weight * self.xy[inputs, target[:, None]]).sum(-1)
        square = torch.einsum("ni,nij,nj->n", weight, products, weight)
        return (self.yy[target] - explained + square) / max(self.rows, 1)


def part_of(rows: Tensor, i: int) -> Tensor:
    """Gives every FOLDS-th of many stretches of rows, from the i-th on."""
    stretches = rows.tensor_split(FOLDS * STRETCHES)
    return torch.cat(stretches[i::FOLDS])


class Recorded:
    """Recorded changes and what may explain them, as a whole and in parts that are left out in turn."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        x, y = x.double(), y.double()
        self.whole = Moments.of(x, y)
        self.parts = [Moments.of(*(part_of(rows, i) for rows in (x, y))) for i in range(FOLDS)]
        self.spread = x.var(0, correction=0)  # (p,)

    def errors(
        self, inputs: Tensor, target: Tensor, strength: float = 0.0, held: Tensor | None = None
    ) -> Tensor:
        """Gives (FOLDS, n) the errors of n laws, each where it was not fitted. held (n, q), 0 or 1: whose
        weights are held small, by that strength."""
        found = []
        for part in self.parts:
            rest = self.whole.without(part)
            weight = rest.solve(inputs, target, self.penalty(rest, inputs, strength, held))
            found.append(part.error(inputs, target, weight))
        return torch.stack(found)

    def errors_of_all(self, target: Tensor) -> Tensor:
        """Gives (n,) the mean errors of laws of all columns, for these columns of y (n,)."""
        found = []
        for part in self.parts:
            rest = self.whole.without(part)
            little = LITTLE * (rest.rows + 1) * torch.eye(len(rest.xx), dtype=torch.float64)
            weight = torch.linalg.solve(rest.xx + little, rest.xy[:, target])  # (p, n)
            square = part.yy[target] + (weight * (part.xx @ weight - 2 * part.xy[:, target])).sum(0)
            found.append(square / max(part.rows, 1))
        return torch.stack(found).mean(0)

    def penalty(self, rows: Moments, inputs: Tensor, strength: float | Tensor, held: Tensor | None) -> Tensor:
        if held is None:
            return torch.zeros(inputs.shape, dtype=torch.float64)
        return strength * rows.rows * self.spread[inputs] * held


def own_inputs(joint: Tensor, command: Tensor, S: int, A: int) -> Tensor:
    """Gives (n, 5) the columns of x that a joint has to itself: velocity, place, command, that before, 1."""
    columns = [joint, S + joint, 2 * S + command, 2 * S + A + command, torch.full_like(joint, 2 * (S + A))]
    return torch.stack(columns, dim=1)


def law_inputs(joint: Tensor, command: Tensor, S: int, A: int) -> tuple[Tensor, Tensor]:
    """Gives (n, S + 4) the columns of a joint's law: its own, and the places of the others; and which of them
    are the others', 0 or 1."""
    own = own_inputs(joint, command, S, A)
    others = torch.stack([torch.tensor([i for i in range(S) if i != j]) for j in joint.tolist()]).long() + S
    theirs = torch.cat([torch.zeros_like(own), torch.ones_like(others)], dim=1)
    return torch.cat([own, others], dim=1), theirs.double()


def curved_errors(x: Tensor, bent: Tensor, y: Tensor) -> Tensor:
    """Gives (m,) the errors of the best laws that are linear in x (R, p) and in random waves of `bent` (R, q)
    (Rahimi and Recht, 2007), of y (R, m), each where it was not fitted."""
    z = ((bent - bent.mean(0)) / bent.std(0).clamp_min(1e-6)).asinh()
    g = torch.Generator().manual_seed(0)
    directions = torch.randn(z.shape[1], WAVES, generator=g) / z.shape[1] ** 0.5
    waves = (z @ directions + 2 * torch.pi * torch.rand(WAVES, generator=g)).sin()
    return Recorded(torch.cat([x, waves], dim=1), y).errors_of_all(torch.arange(y.shape[1]))


def find_commands(
    prev: Tensor, state: Tensor, action: Tensor, after: Tensor, state_change: Tensor, candidates: int
) -> Tensor:
    """Finds which action each number of the state follows, (S,), −1 where none; of R recorded transitions.

    candidates: of how many of the state's first numbers that is asked.
    """
    (S, A), change = (state.shape[-1], action.shape[-1]), state_change.clamp_min(SMALLEST_CHANGE)
    commands = torch.full((S,), -1)
    if not candidates or len(state) < FEWEST_ROWS:
        return commands.float()
    rows = slice(None, None, -(-len(state) // MOST_ROWS))
    x = linear_inputs(prev[rows], state[rows], action[rows], change)
    y = (after[rows] - state[rows]) / change
    recorded, every = Recorded(x, y), torch.arange(candidates)
    number, by = torch.cartesian_prod(every, torch.arange(A)).unbind(1)
    own = recorded.errors(own_inputs(number, by, S, A), number).mean(0).view(candidates, A)
    command = own.argmin(1)
    inputs, _ = law_inputs(every, command, S, A)
    alone = recorded.errors(inputs[:, [0, 1, 4]], every).mean(0)
    law = recorded.errors(inputs, every).mean(0)
    everything = recorded.errors_of_all(every)
    # And what is not linear, in each: how heavy an arm hangs goes by another joint's sine.
    curved = torch.stack([curved_errors(x[:, inputs[j]], x[:, inputs[j, :4]], y[:, [j]])[0] for j in every])
    law = torch.minimum(law, curved)
    everything = torch.minimum(everything, curved_errors(x, x[:, :-1], y[:, :candidates]))
    usual = recorded.whole.yy[:candidates] / recorded.whole.rows
    follows = (law <= AS_GOOD * everything + NEGLIGIBLE * usual) & (own.amin(1) < TELLS * alone)
    commands[:candidates] = torch.where(follows, command, -1)
    return commands.float()


def fit_joint_laws(x: Tensor, y: Tensor, joints: Tensor, commands: Tensor) -> Tensor:
    """Fits the linear law of each of `joints` (J,) under its command (J,): weights (J, p).

    They are zero for what is another's, but for the others' places, whose weights are held as small as can be
    without being surely worse: what hangs on a joint, and no more.
    """
    recorded, S = Recorded(x, y), y.shape[1]
    inputs, held = law_inputs(joints, commands, S, (x.shape[1] - 1) // 2 - S)
    errors = torch.stack([recorded.errors(inputs, joints, strength, held) for strength in STRENGTHS])
    mean = errors.mean(1)  # (strengths, J)
    best = mean.argmin(0)
    worse = errors - errors.gather(0, best.expand_as(errors[:1]))
    surely = worse.mean(1) > worse.std(1) / FOLDS**0.5
    strongest = torch.arange(len(STRENGTHS))[:, None].where(~surely, 0).amax(0)
    strength = torch.tensor(STRENGTHS, dtype=torch.float64)[strongest][:, None]
    penalty = recorded.penalty(recorded.whole, inputs, strength, held)
    weight = torch.zeros(len(joints), x.shape[1], dtype=torch.float64)
    return weight.scatter(1, inputs, recorded.whole.solve(inputs, joints, penalty))
