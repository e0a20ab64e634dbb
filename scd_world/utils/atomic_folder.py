"""Folders that are complete and unchanged, or not there: temp folder, fsync, SHA-256 manifest, rename."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from scd_world.utils.disk import as_os_errors

MANIFEST = "manifest.json"
TEMP, OLD = ".scd-tmp", ".scd-old"  # a user's world.old is not ours to remove


class DamagedFolder(ValueError):
    """A folder that does not hold what was written to it, or what it should."""


def write_folder(target: Path, write: Callable[[Path], None]) -> None:
    """`write(temp)` fills a temporary folder beside `target`, which then takes target's place.

    Killed at any moment, `target` is the old folder, the new one, or (between two renames) absent with the
    old one beside it, hidden, as `.<name>.scd-old`. A write that fails leaves the old folder alone; OSError
    where the disk is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temp = beside(target, TEMP)
    shutil.rmtree(temp, ignore_errors=True)
    try:
        temp.mkdir()
        with as_os_errors():
            write(temp)
        write_manifest(temp)
    except BaseException:
        shutil.rmtree(temp, ignore_errors=True)
        raise
    replace_folder(temp, target)


def replace_folder(new: Path, target: Path) -> None:
    """`new` takes `target`'s place; what was there is removed only afterwards."""
    old = beside(target, OLD)
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(target, old)
    os.replace(new, target)
    sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def put_back(parent: Path) -> None:
    """Gives folders that a kill between the two renames left hidden their names again. Only for who holds the
    lock of what writes there."""
    for old in parent.glob(f".*{OLD}"):
        target = parent / old.name[1:].removesuffix(OLD)
        if not target.exists():
            os.replace(old, target)


def refuse_foreign(target: Path, holds: Collection[str], what: str) -> None:
    """Raises ValueError where replacing `target` would lose anything but an earlier folder of its kind.

    That is one whose manifest names the files that it `holds`, and with nothing in it that the manifest does
    not name: a manifest.json alone is what every web page has. what: in words, for the message.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir():
        raise ValueError(f"{target} is a file, and {what} is a folder: name another place")
    try:
        named = set(hashes_in(target))
    except DamagedFolder:
        named = set()
    if not set(holds) <= named:
        raise ValueError(
            f"{target} exists and is not {what}: to replace it would lose what lies there; name another"
        )
    refuse_strangers(target, names_in(target) - named)


def refuse_strangers(target: Path, strangers: Collection[str]) -> None:
    """Raises ValueError where somebody put files of his own into a folder that is to be replaced."""
    if strangers:
        few = ", ".join(sorted(strangers)[:5])
        raise ValueError(
            f"{target} holds what was not written with it ({few}): move that away, or name another"
        )


def write_manifest(folder: Path) -> None:
    """Hash every file of `folder` into its manifest, all of it on the disk when this returns."""
    files = {name: sha256(folder / name) for name in names_in(folder)}
    (folder / MANIFEST).write_text(json.dumps({"sha256": files}, indent=1, sort_keys=True) + "\n")
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def verify(folder: Path, needed: Iterable[str] = ()) -> None:
    """Raises DamagedFolder unless every file is there and has the hash that the manifest gives it, those that
    are needed among them."""
    hashes = hashes_in(folder)
    for name, expected in hashes.items():
        path = folder / name
        # By its name, not by where a link leads: in the Hub's cache every file is a link to its content.
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise DamagedFolder(f"{folder / MANIFEST} names {name!r}, which lies outside the folder")
        if not os.path.isfile(path):  # which also answers for what can be no name
            raise DamagedFolder(f"{path!s:.200} is missing")
        if sha256(path) != expected:
            raise DamagedFolder(f"{path} was changed after it was written: its SHA-256 does not match")
    if not hashes or set(needed) - hashes.keys():
        missing = ", ".join(sorted(set(needed) - hashes.keys())[:5]) or "any file"
        raise DamagedFolder(f"{folder / MANIFEST} does not list {missing}: what is there was never checked")


def hashes_in(folder: Path) -> dict[str, Any]:
    """Reads what the manifest says of each file; DamagedFolder where there is none to read."""
    try:
        hashes = read_object(folder / MANIFEST).get("sha256")
    except DamagedFolder as error:
        raise DamagedFolder(
            f"{folder} has no readable {MANIFEST}, so it was not completely written ({error})"
        ) from error
    return hashes if isinstance(hashes, dict) else {}


def read_object(file: Path) -> dict[str, Any]:
    """Reads a file of one JSON object; DamagedFolder where it holds anything else."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:  # the last: nested deeper than anybody writes
        raise DamagedFolder(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise DamagedFolder(f"{file} holds {found!r:.80}: expected a JSON object")
    return found


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Raises a ValueError inside as DamagedFolder that names the file whose content was found wrong."""
    try:
        yield
    except ValueError as error:
        raise DamagedFolder(f"{path}: {error}") from error


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)


def names_in(folder: Path) -> set[str]:
    """Gives the names, from the folder on, of all its files but the manifest."""
    return {path.relative_to(folder).as_posix() for path in files_of(folder)}


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """fsync a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def beside(target: Path, ending: str) -> Path:
    """Gives a hidden name beside `target` that nobody else would choose: what lies there may be removed."""
    return target.with_name(f".{target.name}{ending}")


def replace_text(path: Path, text: str) -> None:
    """Replaces a text file at once: nobody reads half of it."""
    replace_file(path, lambda temp: temp.write_text(text, encoding="utf-8"))


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """`write(temp)` makes a file beside `path`, which then takes its place.

    OSError, with nothing left behind, where the disk is full."""
    temp = beside(path, TEMP)
    try:
        with as_os_errors():
            write(temp)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    os.replace(temp, path)
