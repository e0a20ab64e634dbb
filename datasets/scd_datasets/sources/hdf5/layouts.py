"""The layouts of HDF5 recordings that hold a group per episode: which array in it is what, and what is stored
beside them.

robomimic (and LIBERO, MimicGen, robosuite): one file, `data/demo_0`, `data/demo_1` and so on, each with
`actions`, `rewards` and `obs/<key>`. Row i holds an observation, the action taken at it, and the reward of
where that led; `next_obs` repeats the observations one row later.

ALOHA: a file per episode, `action`, `observations/qpos` and `observations/images/<camera>`. Its recorder
observes, then acts: row i again holds the action taken at its observation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scd_datasets.sources.array_roles import proprioception
from scd_datasets.sources.hdf5.files import group_in, open_file
from scd_datasets.sources.lerobot.features import ACTION, ENVIRONMENT_STATE, REWARD, STATE

JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
ARMS = tuple(f"{side}_{joint}" for side in ("left", "right") for joint in JOINTS)
BASE = ("base_linear", "base_angular")  # a mobile ALOHA's velocities
OBJECTS = ("obs/object", "obs/object-state", "obs/object_state")


@dataclass(frozen=True)
class Layout:
    """Says how episodes of one layout are read."""

    what: str  # what such a recording is called
    usual_fps: str  # the rates that such recordings have, as they are to be given
    find_groups: Callable[[Any], list[str]]  # open file → its episodes' groups, "" for the file itself
    action: str  # the array with the action
    roles: Callable[[Mapping[str, Any]], dict[str, tuple[str, ...]]]  # arrays → LeRobot's name → arrays
    camera_of: Callable[[str], str]  # array → short name of the camera that it may be, "" for none
    names: Mapping[int, tuple[str, ...]]  # of the dimensions of state and action, by their count
    stored_fps: Callable[[Any], Any]  # open file → the rate that is stored in it, None for none
    task: Callable[[Any], str]  # open file → its task, "" for none
    depth: int  # groups within an episode's group
    no_camera: str  # what to do where there is none
    repeats: tuple[str, ...] = ()  # beginnings of the names of arrays that repeat others


def first_layout(files: Sequence[Path]) -> Layout | None:
    """Finds the layout of the first HDF5 file that can be opened; None where no layout here has its groups.

    Raises ValueError where none can be.
    """
    for path in files[:-1]:
        try:
            return file_layout(open_file(path))
        except ValueError:
            continue
    return file_layout(open_file(files[-1]))


def file_layout(file: Any) -> Layout | None:
    """Finds the layout of an open HDF5 file by the groups in it; None where no layout here has these."""
    if group_in(file, "data") is not None and robomimic_groups(file):
        return ROBOMIMIC
    if group_in(file, "observations") is not None and "action" in file:
        return ALOHA
    return None


# ------------------------------------------------------------------------------------- robomimic


def robomimic_groups(file: Any) -> list[str]:
    """Gives the demonstrations' groups by number: demo_2 before demo_10."""
    data = group_in(file, "data")
    numbered = [(int(n), name) for name in data if (n := name.rpartition("_")[2]).isdecimal()]
    return [f"data/{name}" for _, name in sorted(numbered)]


def robomimic_roles(arrays: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    observed = [name for name in arrays if name.startswith("obs/")]
    objects = tuple(name for name in OBJECTS if name in arrays)[:1]
    return {
        ACTION: ("actions",),
        STATE: tuple(proprioception(observed)),
        ENVIRONMENT_STATE: objects,
        REWARD: ("rewards",),
    }


def robomimic_fps(file: Any) -> Any:
    """Gives the simulator's control frequency, which env_args hold; None where they do not."""
    kwargs = _json(file, "env_args").get("env_kwargs")
    rate = kwargs.get("control_freq") if isinstance(kwargs, dict) else None
    if not isinstance(rate, int | float) or rate <= 0:
        return None
    return int(rate) if rate == int(rate) else rate


def robomimic_task(file: Any) -> str:
    """Gives LIBERO's instruction, else the environment's name."""
    words = _json(file, "problem_info").get("language_instruction", "")
    instruction = ("".join(words) if isinstance(words, list) else str(words)).strip('" ')
    return instruction or str(_json(file, "env_args").get("env_name", ""))


def _json(file: Any, attribute: str) -> dict[str, Any]:
    """Reads a JSON object among the attributes of `data`; {} where there is none."""
    text = group_in(file, "data").attrs.get(attribute, "{}")
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


ROBOMIMIC = Layout(
    what="robomimic's HDF5 without a control_freq in its env_args",
    usual_fps="data.fps=20 (robosuite's own)",
    find_groups=robomimic_groups,
    action="actions",
    roles=robomimic_roles,
    camera_of=lambda name: name.removeprefix("obs/") if name.startswith("obs/") else "",
    names={},
    stored_fps=robomimic_fps,
    task=robomimic_task,
    depth=2,
    no_camera="robomimic's dataset_states_to_obs.py renders some with --camera_names",
    repeats=("next_obs/",),
)

# ------------------------------------------------------------------------------------- ALOHA


def aloha_roles(arrays: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    return {ACTION: ("action", "base_action"), STATE: ("observations/qpos",)}


def aloha_camera(name: str) -> str:
    inside = name.removeprefix("observations/")
    return inside.removeprefix("images/").replace("/", "_") if inside != name else ""


ALOHA = Layout(
    what="a recording of ALOHA",
    usual_fps="data.fps=50 (ALOHA's own, DT = 0.02)",
    find_groups=lambda file: [""],
    action="action",
    roles=aloha_roles,
    camera_of=aloha_camera,
    names={len(ARMS): ARMS, len(ARMS + BASE): ARMS + BASE},
    stored_fps=lambda file: None,
    task=lambda file: "",
    depth=3,
    no_camera="they are expected in observations/images",
)
