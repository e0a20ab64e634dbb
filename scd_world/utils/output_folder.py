"""Whose folder it is: nothing that a user has is overwritten, because a name is no proof of ownership.

A command that writes into a folder claims it before any work: an empty one gets a mark, a marked one is its
own, and one that holds anything else is refused, what lies there being named.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

MARK = ".scd_world.json"  # in a folder that a command writes into: {"command": …}
SHOWN = 5  # names of strange files in an error


def claim_folder(out: str | Path, command: str, sign: tuple[str, Collection[str]]) -> Path:
    """Makes `out` the folder of a command, or finds that it is; gives it.

    sign: a JSON file (or a pattern of names), and keys that it has, by which a folder of an earlier version,
    which had no mark, is known. ValueError, with nothing written, where `out` is a file, another command's
    folder, or holds what no command has written.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"out={out} is a file: name a folder")
    owner = owner_of(out)
    if owner is None and (found := visible(out)) and not has_sign(out, sign):
        raise ValueError(
            f"out={out} holds {shown(found)}, which {command} has not written and would overwrite: name an "
            "empty folder, or one that does not exist"
        )
    if owner not in (None, command):
        raise ValueError(
            f"out={out} is a folder of {owner}, and {command} needs one of its own: name another"
        )
    out.mkdir(parents=True, exist_ok=True)
    if owner is None:
        (out / MARK).write_text(json.dumps({"command": command}) + "\n", encoding="utf-8")
    return out


@contextmanager
def claimed_folder(out: str | Path, command: str, sign: tuple[str, Collection[str]]) -> Iterator[Path]:
    """Claims as `claim_folder` does; where what follows fails with nothing written, no claim stays."""
    there, owner = Path(out).exists(), owner_of(Path(out))
    folder = claim_folder(out, command, sign)
    try:
        yield folder
    except BaseException:
        if owner is None and [file.name for file in folder.iterdir()] == [MARK]:
            (folder / MARK).unlink()
            if not there:
                folder.rmdir()
        raise


def owner_of(out: Path) -> str | None:
    """Gives the command whose mark a folder bears; a mark that cannot be read is none."""
    try:
        return str(json.loads((out / MARK).read_text(encoding="utf-8"))["command"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def has_sign(out: Path, sign: tuple[str, Collection[str]]) -> bool:
    """Says whether a folder holds a JSON file (a name or a pattern) with these keys."""
    pattern, keys = sign
    for file in out.glob(pattern):
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(found, dict) and set(keys) <= set(found):
            return True
    return False


def visible(out: Path) -> list[str]:
    """Gives the names in a folder. Hidden ones belong to the desktop, or are locks; Hydra leaves a file where
    it sweeps."""
    names = [path.name for path in out.iterdir()] if out.is_dir() else []
    return sorted(name for name in names if not name.startswith(".") and name != "multirun.yaml")


def shown(names: Collection[str]) -> str:
    """Gives a few of many names."""
    few = ", ".join(sorted(names)[:SHOWN])
    return few if len(names) <= SHOWN else f"{few} and {len(names) - SHOWN} more"


def written_since(out: Path, began: float) -> list[str]:
    """Gives the files of a folder that were written since a time (`time.time()`)."""
    return sorted(
        p.name for p in out.iterdir() if p.is_file() and p.name != MARK and p.stat().st_mtime >= began
    )


def remove_older(out: Path, patterns: Collection[str], began: float) -> None:
    """Removes what a command wrote into its folder before a time, by names that it gives its own files:
    beside a newer report they would be taken for the report's."""
    for pattern in patterns:
        for file in out.glob(pattern):
            if file.is_file() and file.stat().st_mtime < began:
                file.unlink()
