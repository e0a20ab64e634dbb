"""LeRobot's plug-in: its commands import this by the distribution's name, and know `--env.type=scd_world`."""

from lerobot_env_scd_world.config import WorldEnvConfig

__all__ = ["WorldEnvConfig"]
