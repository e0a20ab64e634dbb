"""scd_policies: what acts. A policy takes a batch of observations and gives a batch of raw actions."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium

from scd_policies.policy import Policy

# By name alone: planners import worlds, and who only wants a policy need not.
PLANNERS = {
    "best_of_n": "scd_policies.planners.best_of_n:BestOfN",
    "icem": "scd_policies.planners.mpc:ICEM",
    "mppi": "scd_policies.planners.mpc:MPPI",
    "gradient": "scd_policies.planners.gradient:Gradient",
}
NAMES = (
    "random_walk",
    "scripted_pusht",
    "scripted_so101",
    "replay",
    "nearest_neighbor",
    "lerobot",
    *PLANNERS,
)
FORMER_NAMES = {"clone": "nearest_neighbor"}


def make(name: str, action_space: gymnasium.Space, **kwargs: Any) -> Policy:
    """Makes the policy called `name` for one environment's (not the vector environment's) action space.

    `random_walk`, `scripted_pusht` and `scripted_so101` (`skill` in [0, 1]), `replay` (`actions`: one (T, A)
    array per episode), `nearest_neighbor` (`path`: file of the demonstrations that it imitates) or `lerobot`
    (`path`: folder or Hub id of any LeRobot policy); or a planner, `best_of_n`, `icem`, `mppi`, `gradient`
    (`world`: a folder or Hub id; see `planners/config.py`). Or `module:name`, a class of your own that keeps
    the protocol `Policy`: it is imported, and called with the action space and the `kwargs`.

    Raises ValueError for an unknown name, for an action space or arguments that the policy cannot take, and
    for those that are missing.
    """
    kind = policy_class(name)
    signature = inspect.signature(kind).parameters
    parameters = signature.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD][1:]
    if missing := [argument for argument in needed if argument not in kwargs]:
        given = ", ".join(f"{argument}=…" for argument in missing)
        raise ValueError(f"policy {name!r} needs {given}: scd_policies.make({name!r}, space, {given})")
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if unknown := [] if takes_all else sorted(set(kwargs) - {*[*signature][1:]}):
        known = ", ".join([*signature][1:]) or "none"
        raise ValueError(f"policy {name!r} knows no argument {', '.join(unknown)}; it takes {known}")
    return kind(action_space, **kwargs)


def open_policy(
    name: str,
    kwargs: Mapping[str, Any],
    action_space: gymnasium.Space,
    metadata: Mapping[str, Any],
    tasks: Sequence[str],
    device: str,
    asked: str | None = None,
) -> Policy:
    """Makes the policy that `policy=` names, be it a LeRobot checkpoint, for an environment.

    action_space, metadata: of that environment, for one row; a LeRobot policy must know what the cameras are
    called, and a letterbox. tasks, device: what a LeRobot policy is given as its instruction, and where it
    runs. asked: the task that was asked for, which planners are told, too. ValueError where a LeRobot policy
    could mean several tasks.
    """
    if asked and name in PLANNERS:
        kwargs = {"task": asked} | dict(kwargs)
    if not is_checkpoint(name):
        return make(name, action_space, **kwargs)
    if len(tasks) > 1:
        raise ValueError(f"a LeRobot policy takes one task: give task=<one of {list(tasks)}>")
    known = {key: metadata[key] for key in ("views", "recorded", "camera_keys") if key in metadata}
    known |= {"task": "".join(tasks)}
    return make("lerobot", action_space, **({"path": name, "device": device} | known | dict(kwargs)))


def policy_class(name: str) -> Callable[..., Policy]:
    """Imports the class called `name`, and no other: torch and LeRobot are not needed by all."""
    if name == "random_walk":
        from scd_policies.random_walk import RandomWalk

        return RandomWalk
    if name == "scripted_pusht":
        from scd_policies.scripted_pusht import ScriptedPushT

        return ScriptedPushT
    if name == "scripted_so101":
        from scd_policies.scripted_so101 import ScriptedSO101

        return ScriptedSO101
    if name == "replay":
        from scd_policies.replay import Replay

        return Replay
    if name == "nearest_neighbor":
        from scd_policies.nearest_neighbor import NearestNeighborPolicy

        return NearestNeighborPolicy
    if name == "lerobot":
        from scd_policies.lerobot_policy import LeRobotPolicy

        return LeRobotPolicy
    if name in PLANNERS:
        return load_user_policy(PLANNERS[name])
    if ":" in name:
        return load_user_policy(name)
    if name in FORMER_NAMES:
        raise ValueError(f"policy {name!r} is called {FORMER_NAMES[name]!r} now")
    raise unknown(name)


def unknown(name: str) -> ValueError:
    return ValueError(
        f"no policy is called {name!r}; there are {', '.join(NAMES)}, module:name for your own, and for "
        "scd-rollout, scd-rank and scd-play a LeRobot policy's folder or its name on the Hub"
    )


def is_checkpoint(name: str) -> bool:
    """Says whether it is none of `make`'s names, and so a LeRobot policy's folder or its name on the Hub."""
    return name not in (*NAMES, *FORMER_NAMES) and (":" not in name or Path(name).exists())


def check_name(name: str) -> None:
    """Raises ValueError for what is none of `make`'s names, no module:name, no folder and no name on the
    Hub."""
    if is_checkpoint(name) and "/" not in name and not Path(name).exists():
        raise unknown(name)


def load_user_policy(name: str) -> type[Policy]:
    """Imports the class `module:name`; ValueError where there is no such module, or no such policy in it."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # a module that the user's own one imports
        raise ValueError(
            f"policy {name!r}: no module {module!r} is found; give its folder by PYTHONPATH=<folder>"
        ) from error
    except AttributeError as error:
        raise ValueError(f"policy {name!r}: {module} has no {attribute!r}") from error
    # Nothing else is called, whatever a list of policies from elsewhere may name.
    if not (isinstance(found, type) and hasattr(found, "reset") and hasattr(found, "act")):
        raise ValueError(f"policy {name!r} is {found!r}; expected a class with reset(seeds) and act(obs)")
    return found


__all__ = ["NAMES", "Policy", "check_name", "is_checkpoint", "make", "open_policy"]
