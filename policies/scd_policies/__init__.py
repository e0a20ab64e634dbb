"""What acts: policies that take a batch of observations and return a batch of raw actions."""

from __future__ import annotations

from typing import Any

import gymnasium

from scd_policies.policy import Policy

NAMES = ("random_walk", "scripted_pusht", "replay", "clone", "lerobot")


def make(name: str, action_space: gymnasium.Space, **kwargs: Any) -> Policy:
    """The policy called `name` for one environment's (not the vector environment's) action space.

    `random_walk`, `scripted_pusht` (`skill` in [0, 1]), `replay` (`actions`: one (T, A) array per episode),
    `clone` (`path`: file of the recordings that it copies) or `lerobot` (`path`: folder or hub id of any
    LeRobot policy).
    """
    if name == "random_walk":
        from scd_policies.random_walk import RandomWalk as Made
    elif name == "scripted_pusht":
        from scd_policies.scripted_pusht import ScriptedPushT as Made
    elif name == "replay":
        from scd_policies.replay import Replay as Made
    elif name == "clone":
        from scd_policies.clone import Clone as Made
    elif name == "lerobot":
        from scd_policies.lerobot_policy import LeRobotPolicy as Made
    else:
        raise ValueError(f"no policy is called {name!r}; there are {', '.join(NAMES)}")
    return Made(action_space, **kwargs)


__all__ = ["NAMES", "Policy", "make"]
