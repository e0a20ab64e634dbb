"""Plans by gradient: the actions are optimized by backpropagation through the world's state path.

Differentiable are the linear model, the network on top of it, the projection onto the constraints, the heads
of reward and success, and the ensemble's spread; not the images, which nothing here draws. Gradients are
local: where no action of a plan touches the object, none says how to reach it, so that plans best begin as
proposals of a policy.

N plans, H steps, A action.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import torch

from scd_policies.planners.config import GradientConfig
from scd_policies.planners.imagination import Imagination
from scd_policies.planners.planner import Row
from scd_policies.planners.playing import Played, joined
from scd_policies.planners.search import Search
from scd_world.world.starts import StartState
from scd_world.world.world import World


class Gradient(Search):
    """Improves some variants of a plan by Adam, side by side, and carries out the best plan that was met.

    Raises ValueError for a world that has no state path to differentiate.
    """

    def __init__(
        self, action_space: gymnasium.Space, world: str | Path | World | Imagination, **settings: Any
    ) -> None:
        self.settings: GradientConfig = GradientConfig.of(settings)
        super().__init__(action_space, world, self.settings)
        # The first optimizer makes torch import its compiler: seconds that no decision should wait for.
        torch.optim.Adam([torch.zeros(1, requires_grad=True)])
        if not self.imagination.differentiable:
            raise ValueError(
                "gradient plans through the state prior, and here the whole world is stepped, images and "
                "all: set state_only=true (the prior alone), or search with icem or mppi"
            )

    def search(self, row: Row, start: StartState, first: Played) -> Played:
        how, best = self.settings, first
        noise = how.std * self.noise(row, how.samples)
        noise[0] = 0.0
        u = (self.to_unit(first.action) + noise).clamp(-1, 1).requires_grad_()
        optimizer = torch.optim.Adam([u], lr=how.lr)
        for _ in range(how.iterations):
            played = self.play(row, start, self.from_unit(u))
            best = joined([best, Played(*(part.detach() for part in played)).best()]).best()
            (grad,) = torch.autograd.grad(-played.value.sum(), u)  # the world's own weights get none
            u.grad = grad.nan_to_num(0, 0, 0)
            optimizer.step()
            with torch.no_grad():
                u.clamp_(-1, 1)
        with torch.no_grad():
            return joined([best, self.play(row, start, self.from_unit(u)).best()]).best()
