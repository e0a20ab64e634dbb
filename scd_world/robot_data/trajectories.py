"""Recorded states, actions and outcomes of many episodes, without an image."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class StateTrajectories:
    """All rows of the training episodes in model units, one episode after another."""

    state: Tensor  # (F, S)
    prev: Tensor  # (F, S + A) state and action one row earlier; at an episode's start at rest
    action: Tensor  # (F, A)
    reward: Tensor  # (F,)
    success: Tensor  # (F,) 0 or 1
    starts: Tensor  # (E,) int, the first row of each episode
    lengths: Tensor  # (E,) int

    def to(self, device: torch.device) -> StateTrajectories:
        return StateTrajectories(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

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
