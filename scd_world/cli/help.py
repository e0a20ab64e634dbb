"""What a command's --help says: what it does, examples, and each setting with its value and what it means.

What a setting means is the comment beside it, or above it, in its dataclass: whoever reads the code and
whoever types a command are told the same.
"""

from __future__ import annotations

import ast
import inspect
import shutil
import textwrap
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from io import StringIO
from typing import Any, get_type_hints

from hydra import compose, initialize
from omegaconf import DictConfig, ListConfig, OmegaConf

COLUMN = 36  # where what a setting means begins
WIDEST = 120
NARROWEST = 24  # columns of text, however narrow the terminal is
ALSO = (
    "A comma between values and -m: one run each. --config-dir <folder>: presets of your own. --cfg job: the "
    "settings as YAML. --hydra-help: what else Hydra takes."
)


def help_text(name: str, config: type, presets: Mapping[str, Sequence[str]], given: Sequence[str]) -> str:
    """Gives the help page of scd-`name`. config: the dataclass of its settings; presets: config group → the
    names that it can be set to; given: settings that were typed beside --help, which it shows as set."""
    with initialize(version_base="1.3", config_path=None):
        values = compose(config_name=name, overrides=list(given))
    about = inspect.cleandoc(config.__doc__ or "")
    groups = [f"  {group}={'|'.join(names)}" for group, names in presets.items()]
    choose = ["", "Presets, each of which sets a group:", "", *groups] if groups else []
    settings = list(setting_lines(config, values))
    return "\n".join(
        [f"scd-{name}", "", about, *choose, "", "Settings, name=value:", *settings, "", *wrapped(ALSO)]
    )


def setting_lines(config: type, values: DictConfig, prefix: str = "") -> Iterator[str]:
    """Gives the lines of a dataclass' settings, those of the dataclasses in it below it."""
    types, meant = get_type_hints(config), meanings(config)
    own = [field.name for field in fields(config) if not is_dataclass(types[field.name])]
    if own:
        yield ""
    for name in own:
        yield from setting(f"{prefix}{name}={shown(values, name)}", meant.get(name, ""))
    for field in fields(config):
        if field.name not in own and field.name in values:
            yield from setting_lines(types[field.name], values[field.name], f"{prefix}{field.name}.")


def setting(assigned: str, meaning: str) -> Iterator[str]:
    """Gives the lines of one setting: name=value, and beside it what that means."""
    first, *more = wrapped(meaning, COLUMN) or [""]
    if len(assigned) + 4 > COLUMN and first:
        yield f"  {assigned}"
        assigned = ""
    yield f"  {assigned}".ljust(COLUMN) + first if first else f"  {assigned}"
    for line in more:
        yield " " * COLUMN + line


def wrapped(text: str, indent: int = 0) -> list[str]:
    """Breaks a text into lines that the terminal has room for, beside `indent` columns."""
    width = max(min(shutil.get_terminal_size().columns, WIDEST) - indent, NARROWEST)
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def shown(values: DictConfig, name: str) -> str:
    """Gives a setting's value as it would be typed; … where it has to be."""
    if OmegaConf.is_missing(values, name):
        return "…"
    value: Any = values[name]
    if isinstance(value, DictConfig | ListConfig):
        value = OmegaConf.to_container(value)
    if isinstance(value, Enum):
        return value.name
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value).replace("'", "").replace(" ", "")


def meanings(config: type) -> dict[str, str]:
    """Gives field → comment, of a dataclass and of those that it extends."""
    found: dict[str, str] = {}
    for kind in reversed(config.__mro__):
        if is_dataclass(kind):
            with suppress(OSError):  # installed without its source
                found |= comments(textwrap.dedent(inspect.getsource(kind)))
    return found


def comments(source: str) -> dict[str, str]:
    """Gives field → the comment above it and that beside it, of the source of a class."""
    lines = source.splitlines()
    beside: dict[int, str] = {}
    for token in tokenize.generate_tokens(StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            beside[token.start[0]] = token.string.lstrip("# ")
    alone = {number for number in beside if lines[number - 1].lstrip().startswith("#")}
    found = {}
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            first = node.lineno
            while first - 1 in alone:
                first -= 1
            numbers = range(first, (node.end_lineno or node.lineno) + 1)
            found[node.target.id] = " ".join(beside[number] for number in numbers if number in beside)
    return found
