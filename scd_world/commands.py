"""The commands `scd-train`, …: thin mains. What they need is imported inside, so that --help answers at once."""

from __future__ import annotations

import logging
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from scd_world.config import DATA, MODELS, TrainConfig

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
        groups += [child for child in group._content.values() if isinstance(child, DictConfig)]
    return node


def store_configs() -> None:
    store: Any = ConfigStore.instance().store
    for name, model in MODELS.items():
        store(group="model", name=name, node=editable(model))
    for name, data in DATA.items():
        store(group="data", name=name, node=editable(data))
    store(name="train_schema", node=editable(TrainConfig))
    defaults = ["train_schema", {"model": "small"}, {"data": "lerobot"}, *QUIET]
    store(name="train", node={"defaults": defaults, "hydra": HERE | {"help": {"app_name": "scd-train"}}})


store_configs()


@hydra.main(version_base="1.3", config_path=None, config_name="train")
def train(config: DictConfig) -> None:
    settings = OmegaConf.to_object(config)  # the dataclass: from here on, Hydra is out of the game
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from scd_world.train import train as run

    run(settings)
