"""What LeRobot does before and after a planner: nothing, since a world knows its own units."""

from __future__ import annotations

from typing import Any

from lerobot.processor import PolicyProcessorPipeline
from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action

from lerobot_env_scd_world.configuration_scd_planner import ScdPlannerConfig


def make_scd_planner_pre_post_processors(
    config: ScdPlannerConfig, dataset_stats: Any = None
) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
    """Makes the two empty pipelines, as LeRobot asks for them by this name."""
    after = PolicyProcessorPipeline(
        steps=[], to_transition=policy_action_to_transition, to_output=transition_to_policy_action
    )
    return PolicyProcessorPipeline(steps=[]), after
