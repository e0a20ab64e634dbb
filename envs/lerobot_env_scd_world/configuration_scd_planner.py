"""A planner as one of LeRobot's policies: what `--policy.type=scd_planner` takes.

LeRobot finds the class and its pipelines by the names of these modules: `configuration_`, `modeling_` and
`processor_scd_planner`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from draccus import ParsingError
from lerobot.configs import PreTrainedConfig

from scd_policies import PLANNERS


@PreTrainedConfig.register_subclass("scd_planner")
@dataclass
class ScdPlannerConfig(PreTrainedConfig):
    """Configures a policy that plans in a world; nothing of it is trained.

    world: the folder or Hub id of the world that it plans in.
    planner: best_of_n, icem, mppi or gradient.
    settings: of that planner (`scd_policies/planners/config.py`): base, n, horizon, execute, …
    seed: of the first episode; every further one has the next.
    """

    world: str = ""
    planner: str = "best_of_n"
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.world:
            raise ParsingError("in which world? Give --policy.world=<folder or hub id of a world>")
        if self.planner not in PLANNERS:
            raise ParsingError(f"--policy.planner={self.planner}: there are {', '.join(PLANNERS)}")

    @property
    def observation_delta_indices(self) -> None:
        return None

    @property
    def action_delta_indices(self) -> None:
        return None

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self) -> Any:
        raise NotImplementedError(LEARNS_NOTHING)

    def get_scheduler_preset(self) -> None:
        return None

    def validate_features(self) -> None:
        """Accepts all: what the world needs is checked at the first observation."""


LEARNS_NOTHING = "a planner has nothing to train: train the world that it plans in, with scd-train"
