"""YAML of a user's: read within bounds. A few lines of it can name each other until no memory holds them."""

from __future__ import annotations

from pathlib import Path

import yaml

LARGEST_FILE = 2**18  # bytes
MOST_ENTRIES = 100_000  # with every alias written out
DEEPEST = 50  # lists and dictionaries in one another


def check_yaml(path: str | Path) -> None:
    """Raises ValueError, saying where, for a file that is no YAML, or more than anybody writes by hand."""
    path = Path(path)
    if (size := path.stat().st_size) > LARGEST_FILE:
        raise ValueError(f"{path} has {size:,} bytes, and at most {LARGEST_FILE:,} are read: split it")
    sizes: dict[str | None, int] = {}  # anchor → entries
    open_groups: list[tuple[str | None, int]] = []  # anchor, entries so far
    total = 0
    try:
        for event in yaml.parse(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                if event.anchor not in sizes:  # or it would hold itself
                    raise ValueError(f"{path}: *{event.anchor} names nothing that is complete before it")
                total += sizes[event.anchor]
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, before = open_groups.pop()
                sizes[anchor] = total - before
            elif isinstance(event, yaml.CollectionStartEvent):
                open_groups.append((event.anchor, total))
                total += 1
            elif isinstance(event, yaml.ScalarEvent):
                sizes[event.anchor] = 1
                total += 1
            if total > MOST_ENTRIES or len(open_groups) > DEEPEST:
                raise ValueError(
                    f"{path} holds more than {MOST_ENTRIES:,} entries with its aliases written out, or more "
                    f"than {DEEPEST} levels: write it without them"
                )
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML that can be read: {' '.join(str(error).split())}") from error
