"""A disk that takes no more: one class of error for it, whoever writes, and how much room there is."""

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


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
