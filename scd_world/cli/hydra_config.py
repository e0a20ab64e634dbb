"""What every command's Hydra config has in common: read-only dataclasses that the command line may change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf

from scd_datasets.config import DataConfig
from scd_world.utils.checks import all_at_once, check_again, complain, unheard

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


def to_settings(
    config: DictConfig,
    kind: type,
    command: str,
    choose: Callable[[Any, Mapping[str, str]], Any] | None,
    typed: Mapping[str, str],
) -> Any:
    """Gives the dataclass `kind` of a command's settings; ValueError with all that is missing or wrong.

    choose: settings, what was `typed` (name → value) → settings with those that were left open. What was
    typed may need what is chosen, as model.state_filter=true the frame that is kept for it: so all is
    checked after that.
    """
    with all_at_once():
        missing = sorted(OmegaConf.missing_keys(config))
        needed = [f"{name}=…" for name in missing]
        if get_type_hints(kind).get("data") is DataConfig and not (config.data.root or config.data.repo_id):
            needed.append("data.root=<folder> or data.repo_id=<user/name>")
        if needed:
            complain(f"give {' and '.join(needed)}{example(kind, command)}")
        for name in missing:  # so that the others can be checked
            OmegaConf.update(config, name, "missing")
        if needed or choose is None:
            return OmegaConf.to_object(config)
        with unheard():
            settings = OmegaConf.to_object(config)
            try:
                settings = choose(settings, typed)
            except (ArithmeticError, LookupError, TypeError, ValueError):
                check_again(settings)  # nothing can be chosen by what is wrong: that is what is said
                raise
        check_again(settings)
        return settings


def example(kind: type, command: str) -> str:
    """Gives "; for example: scd-train …" from the docstring of a command's dataclass."""
    lines = [line.strip() for line in (kind.__doc__ or "").splitlines()]
    return next((f"; for example: {line}" for line in lines if line.startswith(f"{command} ")), "")
