"""Paths that a dataset names: they stay inside it, and know no other fields than a dataset's files have.

A dataset from a hub is foreign input. `../` or an absolute path would read what else lies on the disk, and a
format string can ask for a gigabyte of zeros or walk through Python's own objects.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

FIELD = re.compile(r"\{(\w+)(?::0?(\d)d)?\}")  # {video_key}, {chunk_index:03d}


def fill(template: str, **fields: str | int) -> str:
    """Gives a path of a template such as `data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet`.

    ValueError: the template has another field or another form of one, or leads out of the dataset.
    """

    known = ", ".join(fields)

    def value(field: re.Match[str]) -> str:
        if field[1] not in fields:
            raise ValueError(f"{template!r} in meta/info.json has the field {field[1]}; known: {known}")
        return str(fields[field[1]]).zfill(int(field[2] or 0))

    filled = FIELD.sub(value, template)
    if re.search(r"[{}]", FIELD.sub("", template)):
        raise ValueError(
            f"{template!r} in meta/info.json is no path of a dataset: expected fields such as "
            f"{{file_index:03d}}, of {known}"
        )
    return inside(filled)


def inside(path: str) -> str:
    """Gives the path as it is; ValueError where it is absolute or leads out of the dataset."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path or not parts.parts:
        raise ValueError(f"the dataset names the file {path!r}, which does not lie inside it")
    return path
