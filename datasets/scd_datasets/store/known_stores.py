"""Where on this machine a recording was turned into a store: what is decoded once is not decoded again.

A small file per store in the cache folder (`cache_folder`) names the place.
The store stays where the command that built it put it; another command links its files, which no command ever
changes, and so has a store of its own at no cost.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from scd_datasets.store.store import WindowStore
from scd_datasets.store.writer import refuse_foreign_store
from scd_world.utils.atomic_folder import TEMP, beside, replace_folder, replace_text
from scd_world.utils.disk import cache_folder

log = logging.getLogger(__name__)


def remember(store: WindowStore) -> None:
    """Notes where a store lies, by the digest of what it was built from."""
    note = cache_folder() / "stores" / store.source
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        replace_text(note, str(store.path.resolve()))
    except OSError as error:  # a home that cannot be written to: then it is decoded again some day
        log.debug("not noted in %s: %s", note, error)


def find(source: str) -> Path | None:
    """Gives the folder of a store that was built from what has this digest, if it is still there."""
    try:
        path = Path((cache_folder() / "stores" / source).read_text(encoding="utf-8"))
        return path if WindowStore.open(path, in_memory=False).source == source else None
    except (OSError, ValueError):  # none noted; gone, or changed, since
        return None


def link(path: Path, out: Path) -> None:
    """Puts the store in folder `path` at `out` as well, by hard links; copies where the disk is another."""
    refuse_foreign_store(out)
    scratch = beside(out, TEMP)
    shutil.rmtree(scratch, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(path, scratch, copy_function=_link_or_copy)
    replace_folder(scratch, out)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
