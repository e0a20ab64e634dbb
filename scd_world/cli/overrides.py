"""The words of a command line, before Hydra reads them: strings are kept as they were typed, names and types
are checked.

Hydra reads a value by a grammar in which = ( ) { } [ ] , ~ # & and others mean something. A path may hold all
of them, so the value of every setting that is a string, or a list or a dictionary of strings, goes in quotes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scd_world.cli.hydra_config import editable
from scd_world.utils.bounded_yaml import check_yaml
from scd_world.utils.checks import all_at_once, complain, one_of
from scd_world.utils.renamed_settings import suggestion

IN_QUOTES = r"'(?:[^'\\]|\\.)*'" + r'|"(?:[^"\\]|\\.)*"'
ITEM = re.compile(rf"\s*((?:{IN_QUOTES})(?=\s*(?:,|$))|[^,]*?)\s*(?:,|$)")  # of a list
PAIR = re.compile(rf"\s*([^:,]+?)\s*:\s*((?:{IN_QUOTES})(?=\s*(?:,|$))|[^,]*?)\s*(?:,|$)")  # of a dictionary
Choices = Mapping[str, Collection[str]]  # group → its presets
CONFIG_FOLDERS = {"--config-dir", "-cd", "--config-path", "-cp"}
SWEEPS = {"-m", "--multirun"}
WORDS = {int: "a whole number", float: "a number", bool: "true or false", list: "a list such as [1,2]"}


def read_overrides(config: type, groups: Choices, arguments: Sequence[str]) -> list[str]:
    """Gives the command line as Hydra reads it, or raises ValueError with all that is wrong with it.

    config: the command's dataclass; groups: what is chosen by name (model=small), and the names. With -m, a
    comma between values means one run each, and quotes are the user's own affair.
    """
    folders = config_folders(arguments)
    for file in (file for folder in folders for file in sorted(folder.rglob("*.yaml"))):
        check_yaml(file)
    if folders:  # they may hold further presets
        groups = dict.fromkeys(groups, ())
    if not SWEEPS & set(arguments):
        kinds = dict(setting_types(config))
        arguments = [quote_override(kinds, argument) for argument in arguments]
    with all_at_once():
        check_names(config, groups, arguments)
        check_types(config, groups, arguments)
    return list(arguments)


def config_folders(arguments: Sequence[str]) -> list[Path]:
    """Gives the folders whose YAML files Hydra is told to read: --config-dir mine, or --config-dir=mine."""
    words = [word for argument in arguments for word in argument.split("=", 1)]
    return [Path(folder) for flag, folder in pairwise(words) if flag in CONFIG_FOLDERS]


# ---- strings as they were typed ----------------------------------------------------------------------


def quote_override(kinds: dict[str, Any], override: str) -> str:
    """Gives `name=value` with its strings in quotes. kinds: the type of every setting."""
    name, equals, value = override.partition("=")
    key = name.lstrip("+")
    kind, parent = kinds.get(key), kinds.get(key.rpartition(".")[0])
    if not equals or (kind is None and parent is None):
        return override
    if kind in (str, str | None) or (kind is Any and not value.startswith(("[", "{"))):
        return f"{name}={quote(value)}"
    if kind == list[str] and value[:1] + value[-1:] == "[]":
        items = [match[1] for match in ITEM.finditer(value[1:-1]) if match[0].strip()]
        return f"{name}=[{','.join(map(quote, items))}]"
    if kind == dict[str, str] and value[:1] + value[-1:] == "{}":
        pairs = [f"{match[1]}:{quote(match[2])}" for match in PAIR.finditer(value[1:-1])]
        return f"{name}={{{','.join(pairs)}}}"
    if parent == dict[str, str]:
        return f"{name}={quote(value)}"
    return override


def quote(text: str) -> str:
    """Gives a string in Hydra's quotes, ~ being the home folder; null, and what is in quotes already, stays.

    ${…} still means another setting or a variable, as everywhere in Hydra."""
    if text == "null" or re.fullmatch(IN_QUOTES, text):
        return text
    return QuotedString(os.path.expanduser(text), Quote.single).with_quotes()


# ---- names -----------------------------------------------------------------------------------------


def check_names(config: type, groups: Choices, overrides: Sequence[str]) -> None:
    """Refuses settings that a command does not have; ValueError with the name that was meant, where there is
    one."""
    known = set(setting_names(config))
    types = get_type_hints(config)
    flags = any(override.startswith("-") for override in overrides)  # a word may belong to the one before it
    for override in overrides:
        name, equals, value = override.partition("=")
        name = name.lstrip("+")
        if name.startswith(("-", "hydra")):
            continue
        if not equals or name.startswith("~"):
            if not flags:
                complain(f"{override}: expected name=value (see --help)")
        elif name in groups:
            if groups[name]:
                one_of(name, value, tuple(groups[name]))
        elif is_dataclass(types.get(name)):
            inside = [f"{name}.{field.name}" for field in fields(types[name])]
            complain(f"{override}: {name} is a group of settings here: give {', '.join(inside[:4])} …")
        elif name not in known and not any(name.startswith(f"{free}.") for free in free_names(config)):
            complain(f"{override}: there is no setting {name}{suggestion(name, known)} (see --help)")


def setting_names(config: type) -> Iterator[str]:
    """Gives all settings of a dataclass and of those in it: lr, model.width, …"""
    return (name for name, _ in setting_types(config))


def setting_types(config: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Gives (name, type) of all settings of a dataclass and of those in it."""
    types = get_type_hints(config)
    for field in fields(config):
        kind = types[field.name]
        yield prefix + field.name, kind
        if is_dataclass(kind):
            yield from setting_types(kind, f"{prefix}{field.name}.")  # type: ignore[arg-type]


def free_names(config: type) -> list[str]:
    """Gives the settings that hold settings of somebody's own, such as a policy's arguments."""
    return [name for name, kind in get_type_hints(config).items() if get_origin(kind) is dict]


# ---- values ----------------------------------------------------------------------------------------


def check_types(config: type, groups: Choices, overrides: Sequence[str]) -> None:
    """Refuses values that Hydra cannot read, that are not of their setting's type, or empty."""
    parser, node, kinds = OverridesParser.create(), editable(config), dict(setting_types(config))
    for argument in overrides:
        name, equals, _ = argument.partition("=")
        if not equals or name.startswith("-") or name in groups:
            continue
        try:
            override = parser.parse_override(argument)
        except HydraException:
            complain(
                f"{argument}: this cannot be read. Inside a dictionary or a list, put quotes around a string "
                f"of more than letters, within the shell's own: '{name}={{file:\"/a=b, c\",size:3}}'"
            )
            continue
        if plain(override) and name in kinds:
            if kinds[name] in (str, str | None) and not str(override.value()).strip():
                complain(f"{name}= is empty: give a value, or leave it out")
            try:
                OmegaConf.update(node, name, override.value())
            except OmegaConfBaseException as error:
                complain(f"{argument}: expected {expected(kinds[name], error)}")


def plain(override: Override) -> bool:
    """Says whether an override sets one value of the command's own."""
    return not (override.is_delete() or override.is_sweep_override() or override.is_hydra_override())


def expected(kind: Any, error: Exception) -> str:
    """Says in words what a setting takes."""
    if get_origin(kind) is UnionType:
        kind = next(part for part in get_args(kind) if part is not type(None))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"one of {', '.join(kind.__members__)}"
    if kind == list[str]:
        return "a list of names such as [front,wrist]"
    first = str(error).partition("\n")[0]
    return WORDS.get(get_origin(kind) or kind, f"another value ({first})")
