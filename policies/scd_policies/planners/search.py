"""A search around one plan, which begins as good as it can without one: what all searches share.

A search works in half ranges of the actions, u ∈ [-1, 1]. It begins at the best of what is left of the last
plan, staying at rest, and the proposals of the base policy, where there is a base policy.

N plans, H steps, A action.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from scd_policies.planners.config import SearchConfig
from scd_policies.planners.noise import colored_noise
from scd_policies.planners.planner import Planner, Row
from scd_policies.planners.playing import Played, joined, play_actions
from scd_world.world.starts import StartState


class Search(Planner):
    """Searches around a plan."""

    settings: SearchConfig

    def plan(self, row: Row, start: StartState) -> Played:
        return self.search(row, start, self.first_plan(row, start))

    @abstractmethod
    def search(self, row: Row, start: StartState, first: Played) -> Played:
        """Gives a plan (1, H, A) that is at least as good, in the world, as the one to begin from."""

    def first_plan(self, row: Row, start: StartState) -> Played:
        """Gives the best plan (1, H, A) that needs no search."""
        rest = self.imagination.rest_action(start).clamp(*self.bounds)
        known = [rest.expand(self.config.horizon, -1)]
        if row.rest is not None:
            last = row.rest[-1:] if len(row.rest) else rest[None]
            known.append(torch.cat([row.rest, last.expand(self.config.execute, -1)])[: self.config.horizon])
        with torch.no_grad():
            played = self.play(row, start, torch.stack(known))
        if self.base is not None:
            played = joined([played, self.propose(row, start, self.settings.proposals)])
        return played.best()

    def play(self, row: Row, start: StartState, action: Tensor) -> Played:
        return play_actions(self.imagination, start, action, self.config, row.seed())

    def noise(self, row: Row, count: int) -> Tensor:
        """Gives (N, H, A), of variance 1."""
        size, steps = len(self.bounds[0]), self.config.horizon
        drawn = colored_noise(row.rng, count, steps, size, self.settings.noise_exponent)
        return torch.from_numpy(drawn).to(self.bounds[0].device)

    def to_unit(self, action: Tensor) -> Tensor:
        """[low, high] → [-1, 1]; 0 where there is but one value."""
        low, high = self.bounds
        width = high - low
        return (2 * action - low - high) / torch.where(width > 0, width, 1)

    def from_unit(self, u: Tensor) -> Tensor:
        """[-1, 1] → [low, high]; what lies outside is clipped."""
        low, high = self.bounds
        return (low + high) / 2 + u.clamp(-1, 1) * (high - low) / 2
