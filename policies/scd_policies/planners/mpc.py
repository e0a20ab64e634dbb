"""Model predictive control by sampling: iCEM and MPPI, with a policy's proposals to begin from or without.

Why not pytorch-icem and pytorch-mppi: both draw from torch's global generator, so that a row's plan would
depend on whoever sampled before, and both own the loop over time steps, which is the world's here.

N plans, H steps, A action.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import torch

from scd_policies.planners.config import ICEMConfig, MPPIConfig
from scd_policies.planners.imagination import Imagination
from scd_policies.planners.planner import Row
from scd_policies.planners.playing import Played, joined
from scd_policies.planners.search import Search
from scd_world.world.starts import StartState
from scd_world.world.world import World

LEAST_SPREAD = 1e-9  # of the plans' values: where all are equal, so are their weights


class ICEM(Search):
    """Fits a normal distribution to the best plans, again and again (Pinneri et al., "Sample-efficient
    Cross-Entropy Method for Real-time Planning", 2020): colored noise, elites that are kept, a population
    that shrinks, and the best plan of all that was tried, not the mean, is carried out."""

    def __init__(
        self, action_space: gymnasium.Space, world: str | Path | World | Imagination, **settings: Any
    ) -> None:
        self.settings: ICEMConfig = ICEMConfig.of(settings)
        super().__init__(action_space, world, self.settings)

    @torch.no_grad()
    def search(self, row: Row, start: StartState, first: Played) -> Played:
        how, best = self.settings, first
        mean, std = self.to_unit(first.action[0]), torch.full_like(first.action[0], how.std)
        kept = first.action[:0]
        for i in range(how.iterations):
            count = max(int(how.samples / how.decay**i), 2 * how.elites)
            tried = self.from_unit(mean + std * self.noise(row, count))
            if i == how.iterations - 1:
                tried = torch.cat([tried, self.from_unit(mean)[None]])
            played = self.play(row, start, torch.cat([tried, kept]))
            elites = played.action[played.value.topk(how.elites).indices]
            kept = elites[: int(how.keep * how.elites)]
            u = self.to_unit(elites)
            mean = how.momentum * mean + (1 - how.momentum) * u.mean(0)
            std = how.momentum * std + (1 - how.momentum) * u.std(0)
            best = joined([best, played.best()]).best()
        return best


class MPPI(Search):
    """Averages plans, the better ones with exponentially more weight (Williams et al., "Information
    Theoretic MPC", 2017): weight ∝ exp(value / (temperature · deviation of the values))."""

    def __init__(
        self, action_space: gymnasium.Space, world: str | Path | World | Imagination, **settings: Any
    ) -> None:
        self.settings: MPPIConfig = MPPIConfig.of(settings)
        super().__init__(action_space, world, self.settings)

    @torch.no_grad()
    def search(self, row: Row, start: StartState, first: Played) -> Played:
        how, mean, best = self.settings, self.to_unit(first.action[0]), first
        for _ in range(how.iterations):
            tried = self.from_unit(mean + how.std * self.noise(row, how.samples))
            played = self.play(row, start, torch.cat([tried, self.from_unit(mean)[None]]))
            known = played.value[played.value.isfinite()]
            if not len(known):
                return best
            spread = known.std(correction=min(1, len(known) - 1)).clamp_min(LEAST_SPREAD)
            weight = (played.value / (how.temperature * spread)).softmax(0)
            mean = torch.einsum("n,nha->ha", weight, self.to_unit(played.action))
        averaged = self.play(row, start, self.from_unit(mean)[None])
        return joined([averaged, best]).best()
