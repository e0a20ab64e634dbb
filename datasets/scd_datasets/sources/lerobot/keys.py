"""The names under which things were recorded, and LeRobot's: one recorder says `actions`, others `action`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

from scd_datasets.sources.lerobot.features import ACTION, LOW_DIM, SET_ASIDE, STATE, Feature
from scd_datasets.sources.source import Finding
from scd_world.robot_data.camera_keys import IMAGE, IMAGES

ALIASES = {"actions": ACTION, "state": STATE}  # openpi's layout: the same things under shorter names


def rename(
    features: Mapping[str, Feature], keys: Mapping[str, str], where: Path
) -> tuple[dict[str, Feature], list[Finding]]:
    """Gives the features under LeRobot's names, and what was renamed without being asked.

    keys: recorded name → LeRobot's. ValueError for a name that was not recorded, is none of LeRobot's, or is
    already taken.
    """
    for stored, key in keys.items():
        if stored not in features:
            raise ValueError(f"data.keys: {stored} is not recorded{did_you_mean(stored, features)}")
        check_target(stored, key)
        if key in features and key not in keys and key != stored:
            raise ValueError(
                f"data.keys={{{stored}: {key}}}: {where} records {key} as well; give that another name, "
                f"data.keys={{{stored}: {key}, {key}: recorded.{key}}}"
            )
    assumed = {
        alias: key
        for alias, key in ALIASES.items()
        if alias in features and alias not in keys and key not in features and key not in keys.values()
    }
    names = {**assumed, **keys}
    if len(set(names.values())) < len(names):
        raise ValueError(f"data.keys={dict(keys)} gives two features one name")
    renamed = {names.get(stored, stored): feature for stored, feature in features.items()}
    found = [Finding(f"is called {alias}", key, "read as such") for alias, key in assumed.items()]
    return renamed, found


def check_target(stored: str, key: str) -> None:
    """Raises ValueError, with what was probably meant, for a name in data.keys that nothing is read under.

    A slip there would leave out what is renamed by it, and be seen when the training is done.
    """
    if key in (*LOW_DIM, IMAGE):
        return
    if key.startswith(IMAGES) and "/" not in key and key != IMAGES:  # a camera's name names a folder, too
        return
    if key.startswith(SET_ASIDE) and key != SET_ASIDE:
        return
    raise ValueError(
        f"data.keys={{{stored}: {key}}}: {key!r} is no name of LeRobot's{_meant(key, (*LOW_DIM, IMAGE))} "
        f"Expected one of {', '.join(LOW_DIM)}, {IMAGE}, {IMAGES}<name> (a name without /), or "
        f"{SET_ASIDE}<name> for what is not to be read"
    )


def did_you_mean(name: str, known: Mapping[str, object]) -> str:
    """Gives the end of an error about an unknown name: what was meant, or what there is."""
    return f"{_meant(name, known)} It has: {', '.join(sorted(known)) or 'nothing'}"


def _meant(name: str, known: Iterable[str]) -> str:
    """Asks for the known name that is like this one; a full stop where none is."""
    known = list(known)
    parts = [key for key in known if key in name or (name and name in key)]
    close = get_close_matches(name, known, n=1) or parts
    return f"; did you mean {close[0]}?" if close else "."


def missing_action(root: Path, features: Mapping[str, Feature]) -> str:
    """Gives the error of a dataset that has no action under LeRobot's name."""
    vectors = [key for key, feature in features.items() if feature.is_vector]
    likely = [key for key in vectors if "action" in key.lower() or "command" in key.lower()]
    cure = f"; did you mean data.keys={{{likely[0]}: {ACTION}}}?" if likely else "."
    return f"{root} records no {ACTION!r}{cure} It has: {', '.join(sorted(features))}"


def state_finding(features: Mapping[str, Feature]) -> list[Finding]:
    """Names what may be the robot's state under another name, where there is none under LeRobot's."""
    if STATE in features:
        return []
    likely = [
        key
        for key, feature in features.items()
        if feature.is_vector and ("state" in key.lower() or "qpos" in key.lower()) and key.startswith("obs")
    ]
    return [
        Finding("may be the robot's own state", key, f"not read; data.keys={{{key}: {STATE}}} reads it")
        for key in likely[:1]
        if "environment" not in key
    ]
