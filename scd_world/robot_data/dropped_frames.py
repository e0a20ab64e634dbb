"""Frames that a recorder dropped: rows between which more than one step passed.

A recording's rows count as steps of one length. A recorder that is late leaves a frame out, and the next row
shows the robot where it is after two steps: it went twice as far as its command says. Time stamps seldom
tell, for most are written as index / fps; the robot's own motion does. A linear model of its next state says
where one step leads, and where a second one leads under a command between that and the next: where the
recorded state is far from the first and near the second, a frame is missing. Of a robot that stands still
none is found, and none matters.

F rows, E episodes, S numbers of the robot's own state, A action; raw units.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from scd_world.robot_data.linear_fit import SMALLEST_CHANGE, linear_inputs, ridge
from scd_world.robot_data.normalizer import to_unit

FEWEST = 100  # transitions: fewer tell no law
MOST = 50_000  # are looked at to find it
TOGETHER = 2**18  # rows that are judged at a time
ROUNDS = 2  # fits: what the first one finds has no say in the second
MOVING = 0.5  # of the median motion per step, from which on a robot moves
FAR = 4.0  # times the usual error of one step while it moves, and
FURTHER = 0.5  # of the motion that the model expects: how far off what was recorded then is
NEAR = 0.4  # times as far off two steps are


def find_dropped_frames(
    state: np.ndarray, action: np.ndarray, starts: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """Tells of each row whether a frame is missing between it and the next one of its episode, bool (F,).

    state (F, S): what the robot's own sensors say of it; action (F, A); starts, lengths (E,) of the episodes.
    """
    found = np.zeros(len(state), bool)
    inner = (start + np.arange(1, length - 1) for start, length in zip(starts, lengths, strict=True))
    rows = np.concatenate([np.arange(0), *inner])
    if not state.shape[1] or not action.shape[1] or len(rows) < FEWEST:
        return found
    own, command = (to_unit(x, x.amin(0), x.amax(0)) for x in map(torch.from_numpy, (state, action)))
    change = (own[rows + 1] - own[rows]).square().mean(0).sqrt().clamp_min(SMALLEST_CHANGE)
    sample = rows[:: 1 + len(rows) // MOST]
    for _ in range(ROUNDS):
        known = sample[~found[sample]]
        weight = ridge(*transition(own, command, known, change))[0].float()
        found[rows] = judge(own, command, rows, change, weight)
    return found


def transition(state: Tensor, action: Tensor, rows: np.ndarray, change: Tensor) -> tuple[Tensor, Tensor]:
    """Gives what a linear model of the next state is given at rows (R,), and the change, usual change 1."""
    before = torch.cat([state[rows - 1], action[rows - 1]], dim=-1)
    inputs = linear_inputs(before, state[rows], action[rows], change)
    return inputs, (state[rows + 1] - state[rows]) / change


def judge(state: Tensor, action: Tensor, rows: np.ndarray, change: Tensor, weight: Tensor) -> np.ndarray:
    """Says of rows (R,) after which of them a frame is missing, (R,), by a linear model (S, n)."""
    parts = [errors(state, action, some, change, weight) for some in in_parts(rows)]
    motion, one, two = (torch.cat(part) for part in zip(*parts, strict=True))
    moves = motion > MOVING * motion.median()
    if not moves.any():
        return np.zeros(len(rows), bool)
    off = moves & (one > FAR * one[moves].median()) & (one > FURTHER * motion)
    return (off & (two < NEAR * one)).numpy()


def errors(
    state: Tensor, action: Tensor, rows: np.ndarray, change: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gives how far a linear model expects the robot to move at rows (R,), and how far off the next row is of
    where one step leads, and where a second one leads, (R,) each, usual change 1."""
    inputs, moved = transition(state, action, rows, change)
    first = inputs @ weight.T
    before, after = torch.cat([state[rows], action[rows]], dim=-1), state[rows] + change * first
    between = (action[rows] + action[rows + 1]) / 2  # the command that would have been recorded
    second = linear_inputs(before, after, between, change) @ weight.T
    return first.norm(dim=-1), (moved - first).norm(dim=-1), (moved - first - second).norm(dim=-1)


def in_parts(rows: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, len(rows), TOGETHER):
        yield rows[first : first + TOGETHER]


def steady_stretches(
    dropped: np.ndarray, starts: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts episodes where a frame is missing: gives first rows and lengths, (N,) each, of what is left.

    The row after a missing frame is in none: how fast the robot was there, the row before it does not tell.
    """
    first, count = [], []
    for start, length in zip(starts, lengths, strict=True):
        ends = start + np.flatnonzero(dropped[start : start + length])
        begin = np.concatenate([[start], ends + 2])
        end = np.concatenate([ends + 1, [start + length]])
        long = end > begin
        first.append(begin[long])
        count.append((end - begin)[long])
    none = np.zeros(0, np.int64)
    return np.concatenate([none, *first]), np.concatenate([none, *count])
