"""LeRobot's commands import this by the distribution's name, and so learn `--env.type=scd_world`."""

from lerobot_env_scd_world.config import WorldEnvConfig

__all__ = ["WorldEnvConfig"]
