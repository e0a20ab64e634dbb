"""The commands `scd-train`, …: thin mains that import what they need late, so that --help answers at once."""

from __future__ import annotations

from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from scd_world.config import DATA, MODELS, TrainConfig
from scd_world.demo_config import DemoConfig
from scd_world.evaluate_config import BenchConfig, EvaluateConfig
from scd_world.hydra_node import HERE, QUIET, editable, plain_errors


def store_configs() -> None:
    store: Any = ConfigStore.instance().store
    for name, model in MODELS.items():
        store(group="model", name=name, node=editable(model))
    for name, data in DATA.items():
        store(group="data", name=name, node=editable(data))
    commands = {
        "train": (TrainConfig, [{"model": "small"}, {"data": "lerobot"}]),
        "evaluate": (EvaluateConfig, [{"data": "zarr"}]),
        "bench": (BenchConfig, [{"model": "small"}]),
        "demo": (DemoConfig, []),
    }
    for name, (config, groups) in commands.items():
        store(name=f"{name}_schema", node=editable(config))
        defaults = [f"{name}_schema", *groups, *QUIET]
        store(name=name, node={"defaults": defaults, "hydra": HERE | {"help": {"app_name": f"scd-{name}"}}})


store_configs()


@hydra.main(version_base="1.3", config_path=None, config_name="train")
@plain_errors()
def train(config: DictConfig) -> None:
    settings = OmegaConf.to_object(config)  # the dataclass: from here on, Hydra is out of the game
    from scd_world.train import train as run

    run(settings)


@hydra.main(version_base="1.3", config_path=None, config_name="evaluate")
@plain_errors()
def evaluate(config: DictConfig) -> None:
    settings = OmegaConf.to_object(config)
    from scd_world.evaluate import evaluate as run

    run(settings)


@hydra.main(version_base="1.3", config_path=None, config_name="bench")
@plain_errors()
def bench(config: DictConfig) -> None:
    settings = OmegaConf.to_object(config)
    from scd_world.bench import bench as run

    run(settings)


@hydra.main(version_base="1.3", config_path=None, config_name="demo")
@plain_errors()
def demo(config: DictConfig) -> None:
    settings = OmegaConf.to_object(config)
    from scd_world.demo import demo as run

    run(settings)
