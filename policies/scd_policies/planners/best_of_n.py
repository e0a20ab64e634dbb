"""Best of N: a policy proposes N times, the world plays all proposals, the best one is carried out.

Any policy that samples gains by it: its own skill does the search, and the world only has to tell its better
actions from its worse ones (Nakamoto et al., "Steering Your Generalists", 2024, does so with a value
function; here it is a rollout).
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium

from scd_policies.planners.config import BestOfNConfig
from scd_policies.planners.imagination import Imagination
from scd_policies.planners.planner import Planner, Row
from scd_policies.planners.playing import Played
from scd_world.world.starts import StartState
from scd_world.world.world import World


class BestOfN(Planner):
    """Carries out the best of N proposals of its `base` policy, `execute` steps of it; then again.

    Warns once where all proposals are equal: best of N is then the base policy itself.
    """

    def __init__(
        self,
        action_space: gymnasium.Space,
        world: str | Path | World | Imagination,
        **settings: Any,
    ) -> None:
        self.settings = BestOfNConfig.of(settings)
        super().__init__(action_space, world, self.settings)
        self._warned = False

    def plan(self, row: Row, start: StartState) -> Played:
        played = self.propose(row, start, self.settings.n)
        # By the first actions: later ones answer to what is imagined, where copies may differ.
        first = played.action[:, 0]
        if self.settings.n > 1 and not self._warned and bool((first == first[0]).all()):
            warnings.warn(
                f"all {self.settings.n} proposals of {self.settings.base!r} are equal: it does not sample, "
                "so the best of them is what it would have done anyway. Let it sample, e.g. "
                "base_degrade={noise: <raw units>}, or search around it with icem or mppi",
                stacklevel=2,
            )
            self._warned = True
        return played.best()
