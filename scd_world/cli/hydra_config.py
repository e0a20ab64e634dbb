"""What every command's Hydra config has in common: read-only dataclasses that the command line may change."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from omegaconf import DictConfig, OmegaConf

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
