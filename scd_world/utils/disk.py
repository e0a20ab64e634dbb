"""The disk: one class of error where it takes no more, how much room there is, and where a cache may lie."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


@contextmanager
def as_os_errors() -> Iterator[None]:
    """Raises OSError with the system's number where safetensors, which has a class of its own, could not
    write."""
    try:
        yield
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from error


def room(needed: int, folder: Path) -> str:
    """Says how many bytes are needed, and how many are free where `folder` is, or is to be."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return f"it takes {megabytes(needed)}, and {megabytes(shutil.disk_usage(there).free)} are free"


def cache_folder() -> Path:
    """Gives the folder of what this machine keeps and can make anew: SCD_CACHE, else scd_world in
    XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("SCD_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scd_world"


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
