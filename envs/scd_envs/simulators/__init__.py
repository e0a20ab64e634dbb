"""Simulators as ground truth, all with one observation: `pixels`, `agent_pos`, `environment_state`."""

from __future__ import annotations

from typing import Any

import gymnasium

NAMES = ("pusht", "pendulum", "so101", "panning_camera")


def make(name: str, **kwargs: Any) -> gymnasium.Env:
    """Makes the simulator called `name`, truncating episodes as a user of it expects.

    `pusht` (gym-pusht, 96 × 96), `pendulum` (Pendulum-v1's physics, small images), `so101` (LeRobot's own
    arm, in MuJoCo; the extra of that name), `panning_camera` (a view that moves along a table: a test of
    memory), or the id of any registered Gymnasium environment that observes or renders images (see
    `adapter.adapt` for its `kwargs`).
    All take `render_images=False`: no `pixels`, and many times as fast.
    """
    if name == "pusht":
        from scd_envs.simulators.pusht import PushT

        return _time_limit(PushT, 300, kwargs)
    if name == "pendulum":
        from scd_envs.simulators.pendulum import Pendulum

        return _time_limit(Pendulum, 200, kwargs)
    if name == "panning_camera":
        from scd_envs.simulators.panning_camera import PanningCamera

        return _time_limit(PanningCamera, 100, kwargs)
    if name == "so101":
        from scd_envs.simulators.so101 import SO101Pick

        return _time_limit(SO101Pick, 50, kwargs)
    from scd_envs.simulators.adapter import adapt

    return adapt(name, **kwargs)


def _time_limit(env_class: type[gymnasium.Env], steps: int, kwargs: dict[str, Any]) -> gymnasium.Env:
    steps = kwargs.pop("max_episode_steps", steps)
    return gymnasium.wrappers.TimeLimit(env_class(**kwargs), max_episode_steps=steps)
