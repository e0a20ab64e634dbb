"""LeRobot's plug-in: its commands import this by the distribution's name, and know `--env.type=scd_world` and
`--policy.type=scd_planner`."""

from lerobot_env_scd_world.config import WorldEnvConfig
from lerobot_env_scd_world.configuration_scd_planner import ScdPlannerConfig

__all__ = ["ScdPlannerConfig", "WorldEnvConfig"]
