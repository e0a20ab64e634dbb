"""What acts: policies that take a batch of observations and return a batch of raw actions."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import gymnasium

from scd_policies.policy import Policy

NAMES = ("random_walk", "scripted_pusht", "replay", "nearest_neighbor", "lerobot")


def make(name: str, action_space: gymnasium.Space, **kwargs: Any) -> Policy:
    """The policy called `name` for one environment's (not the vector environment's) action space.

    `random_walk`, `scripted_pusht` (`skill` in [0, 1]), `replay` (`actions`: one (T, A) array per episode),
    `clone` (`path`: file of the recordings that it copies) or `lerobot` (`path`: folder or hub id of any
    LeRobot policy). Or `module:name`, a class of your own that keeps the protocol `Policy`: it is imported,
    and called with the action space and the `kwargs`.
    """
    if name == "random_walk":
        from scd_policies.random_walk import RandomWalk as Made
    elif name == "scripted_pusht":
        from scd_policies.scripted_pusht import ScriptedPushT as Made
    elif name == "replay":
        from scd_policies.replay import Replay as Made
    elif name == "nearest_neighbor":
        from scd_policies.nearest_neighbor import NearestNeighborPolicy as Made
    elif name == "lerobot":
        from scd_policies.lerobot_policy import LeRobotPolicy as Made
    elif ":" in name:
        Made = load_user_policy(name)
    else:
        raise ValueError(
            f"no policy is called {name!r}; there are {', '.join(NAMES)}, and module:name for your own"
        )
    return Made(action_space, **kwargs)


def is_checkpoint(name: str) -> bool:
    """Whether it is none of `make`'s names, and so a LeRobot policy's folder or its name on the Hub."""
    return name not in NAMES and (":" not in name or Path(name).exists())


def load_user_policy(name: str) -> type[Policy]:
    """The class `module:name`; ValueError where there is no such module, or no policy of that name in it."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # one that it imports in its turn
        raise ValueError(
            f"policy {name!r}: no module {module!r} is found; say where it lies by PYTHONPATH=<its folder>"
        ) from error
    except AttributeError as error:
        raise ValueError(f"policy {name!r}: {module} has no {attribute!r}") from error
    # Nothing else is called, whatever a list of policies from elsewhere may name.
    if not (isinstance(found, type) and hasattr(found, "reset") and hasattr(found, "act")):
        raise ValueError(f"policy {name!r} is {found!r}; expected a class with reset(seeds) and act(obs)")
    return found


__all__ = ["NAMES", "Policy", "is_checkpoint", "make"]
