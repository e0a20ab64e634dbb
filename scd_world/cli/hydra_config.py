"""What every command's Hydra config has in common: read-only dataclasses that the command line may change."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf

from scd_world.utils.renamed_settings import suggestion

# Hydra keeps its hands off folders and logging: a run folder holds its own config and log.
QUIET = ["_self_", {"override hydra/job_logging": "none"}, {"override hydra/hydra_logging": "none"}]
HERE = {"run": {"dir": "."}, "output_subdir": None}


def editable(config: object) -> DictConfig:
    """A config node that the command line may change, of a dataclass that is read-only."""
    node = OmegaConf.structured(config)
    groups = [node]
    while groups:
        group = groups.pop()
        OmegaConf.set_readonly(group, None)
        if OmegaConf.get_type(group) is dict:  # a free dictionary, such as a policy's own arguments
            OmegaConf.set_struct(group, False)
        groups += [child for child in group._content.values() if isinstance(child, DictConfig)]
    return node


def check_names(config: type, groups: Collection[str], overrides: Sequence[str]) -> None:
    """Refuses settings that a command does not have, before Hydra does in its own words.

    config: the command's dataclass; groups: what is chosen by name (model=small). ValueError with the name
    that was meant, where there is one.
    """
    known = set(setting_names(config))
    types = get_type_hints(config)
    for override in overrides:
        name, equals, _ = override.partition("=")
        if not equals or name.startswith(("-", "+", "~", "hydra")) or name in groups:
            continue
        if is_dataclass(types.get(name)):
            inside = [f"{name}.{field.name}" for field in fields(types[name])]
            raise ValueError(
                f"{override}: {name} is a group of settings here: give {', '.join(inside[:4])} …"
            )
        if name not in known and not any(name.startswith(f"{free}.") for free in free_names(config)):
            raise ValueError(f"{override}: there is no setting {name}{suggestion(name, known)} (see --help)")


def setting_names(config: type, prefix: str = "") -> Iterator[str]:
    """Gives all settings of a dataclass and of those in it: lr, model.width, …"""
    types = get_type_hints(config)
    for field in fields(config):
        yield prefix + field.name
        if is_dataclass(types[field.name]):
            yield from setting_names(types[field.name], f"{prefix}{field.name}.")


def free_names(config: type) -> list[str]:
    """Gives the settings that hold settings of somebody's own, such as a policy's arguments."""
    return [name for name, kind in get_type_hints(config).items() if get_origin(kind) is dict]


@contextmanager
def plain_errors() -> Iterator[None]:
    """What a user can cure ends a command with its message alone; SCD_DEBUG=1 shows where it was found."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("lerobot").setLevel(logging.WARNING)  # it notes its video codec for every episode
    try:
        yield
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        if os.environ.get("SCD_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
