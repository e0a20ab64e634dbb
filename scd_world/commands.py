"""The commands `scd-train`, …: thin mains that import what they need late, so that --help answers at once."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from scd_world.config import DATA, MODELS, TrainConfig
from scd_world.demo_config import DemoConfig
from scd_world.distill.config import DistillConfig
from scd_world.evaluate_config import BenchConfig, EvaluateConfig
from scd_world.hydra_node import HERE, QUIET, editable, plain_errors
from scd_world.probe_config import ProbeConfig
from scd_world.rank_config import RankConfig
from scd_world.rollout_config import RolloutConfig

COMMANDS: dict[str, tuple[type, list[dict[str, str]]]] = {
    "train": (TrainConfig, [{"model": "small"}, {"data": "lerobot"}]),
    "distill": (DistillConfig, [{"data": "zarr"}]),
    "evaluate": (EvaluateConfig, [{"data": "zarr"}]),
    "rollout": (RolloutConfig, []),
    "rank": (RankConfig, []),
    "bench": (BenchConfig, [{"model": "small"}]),
    "probe": (ProbeConfig, [{"data": "zarr"}]),
    "demo": (DemoConfig, []),
}
PRESETS: dict[str, dict[str, Any]] = {"model": MODELS, "data": DATA}


def store_configs() -> None:
    """All commands' configs; in a command's own process its own alone, because Hydra copies all that is
    stored dozens of times before it shows --help."""
    called = Path(sys.argv[0]).name.removeprefix("scd-")
    names = [called] if called in COMMANDS else list(COMMANDS)
    store: Any = ConfigStore.instance().store
    for group in {group for name in names for choice in COMMANDS[name][1] for group in choice}:
        for preset, values in PRESETS[group].items():
            store(group=group, name=preset, node=asdict(values))
    for name in names:
        config, groups = COMMANDS[name]
        store(name=f"{name}_schema", node=editable(config))
        defaults = [f"{name}_schema", *groups, *QUIET]
        places = HERE | ({"sweep": {"dir": "${out}", "subdir": "."}} if name == "rank" else {})
        store(name=name, node={"defaults": defaults, "hydra": places | {"help": {"app_name": f"scd-{name}"}}})


store_configs()


@hydra.main(version_base="1.3", config_path=None, config_name="train")
@plain_errors()
def train(config: DictConfig) -> None:
    settings = OmegaConf.to_object(config)  # the dataclass: from here on, Hydra is out of the game
    from scd_world.train import train as run

    run(settings)


@hydra.main(version_base="1.3", config_path=None, config_name="distill")
@plain_errors()
def distill(config: DictConfig) -> None:
    settings = OmegaConf.to_object(config)
    from scd_world.distill.distill import distill as run

    run(settings)


@hydra.main(version_base="1.3", config_path=None, config_name="evaluate")
@plain_errors()
def evaluate(config: DictConfig) -> None:
    settings = OmegaConf.to_object(config)
    from scd_world.evaluate import evaluate as run

    run(settings)


@hydra.main(version_base="1.3", config_path=None, config_name="rollout")
@plain_errors()
def rollout(config: DictConfig) -> None:
    settings: Any = OmegaConf.to_object(config)
    from scd_datasets.recording import conclude
    from scd_world.rollout import imagine

    notes = imagine(settings)
    conclude(notes, settings.episodes)
    print(f"imagined: {settings.out} (LeRobotDataset v3; meta/imagined.json says by which world)")


@hydra.main(version_base="1.3", config_path=None, config_name="rank")
@plain_errors()
def rank(config: DictConfig) -> None:
    settings: Any = OmegaConf.to_object(config)
    from scd_world.rank import rank as run

    run(settings)


@hydra.main(version_base="1.3", config_path=None, config_name="bench")
@plain_errors()
def bench(config: DictConfig) -> None:
    settings = OmegaConf.to_object(config)
    from scd_world.bench import bench as run

    run(settings)


@hydra.main(version_base="1.3", config_path=None, config_name="probe")
@plain_errors()
def probe(config: DictConfig) -> None:
    settings = OmegaConf.to_object(config)
    from scd_world.probe import probe as run

    run(settings)


@hydra.main(version_base="1.3", config_path=None, config_name="demo")
@plain_errors()
def demo(config: DictConfig) -> None:
    settings = OmegaConf.to_object(config)
    from scd_world.demo import demo as run

    run(settings)
