"""The mark of a dataset that neither a robot nor a simulator has recorded: who imagined it.

It stands in two places. `meta/imagined.json` says all of it, and is lost when LeRobot deletes, splits or
merges episodes, or removes a feature: it writes a new dataset. `robot_type` in meta/info.json goes with all
of these, and LeRobot merges no two datasets in which it differs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

IMAGINED = "meta/imagined.json"
KIND = "imagined"  # how `robot_type` begins; in earlier versions all of it
DIGITS = 12  # of the world's SHA-256


def imagined_robot_type(world: str, sha256: str) -> str:
    """Gives the `robot_type` of what a world imagines: `imagined:mine/world:1a2b3c4d5e6f`.

    world: its folder, of which the last two parts are kept, or its name on the Hub. sha256: of its manifest.
    """
    parts = Path(world).resolve().parts[1:] if Path(world).is_dir() else (world,)
    return ":".join([KIND, "/".join(parts[-2:]), sha256[:DIGITS]])


def imagined_by(info: Mapping[str, Any], root: Path) -> str | None:
    """Says in plain words who imagined the dataset in folder `root`; None for one that was recorded.

    info: its meta/info.json.
    """
    kind, _, mark = str(info.get("robot_type") or "").partition(":")
    file = root / IMAGINED
    if kind != KIND and not file.is_file():
        return None
    world, _, sha256 = mark.rpartition(":")
    if file.is_file():  # it names the world in full
        try:
            made = json.loads(file.read_text(encoding="utf-8"))
            world, sha256 = str(made["world"]), str(made["world_sha256"])
        except (ValueError, KeyError, TypeError):
            pass  # damaged: the other mark says what it can
    if not world:
        return "imagined by a world that its marks do not name"
    return f"imagined by the world {world} (sha256 {sha256[:DIGITS]})"
