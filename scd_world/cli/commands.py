"""The ten commands: thin mains that import what they need late, so that --help answers at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from scd_datasets.config import DATA, CheckConfig
from scd_world.benchmark.config import BenchConfig
from scd_world.cli.hydra_config import HERE, QUIET, check_names, editable, plain_errors
from scd_world.demo.config import DemoConfig
from scd_world.distill.config import DistillConfig
from scd_world.evaluation.config import EvaluateConfig
from scd_world.model.config import MODELS
from scd_world.prior.config import PRIORS
from scd_world.probes.config import ProbeConfig
from scd_world.ranking.config import RankConfig
from scd_world.rollouts.config import RecordConfig, RolloutConfig
from scd_world.training.config import TrainConfig


class Command(NamedTuple):
    """A command: the dataclass of its settings, and the function that they are handed to."""

    config: type
    run: str  # module:function, imported when the settings are known to be right
    presets: Mapping[str, str] = MappingProxyType({})  # config group → its default choice


COMMANDS = {
    "record": Command(RecordConfig, "scd_world.rollouts.record:run_record"),
    "data": Command(CheckConfig, "scd_datasets.preparation.check:run_check"),
    "train": Command(
        TrainConfig,
        "scd_world.training.trainer:train",
        {"model": "small", "prior": "state", "data": "lerobot"},
    ),
    "distill": Command(DistillConfig, "scd_world.distill.distill:distill", {"data": "zarr"}),
    "evaluate": Command(EvaluateConfig, "scd_world.evaluation.evaluate:evaluate", {"data": "zarr"}),
    "rollout": Command(RolloutConfig, "scd_world.rollouts.imagine:run_rollout"),
    "rank": Command(RankConfig, "scd_world.ranking.rank:rank"),
    "bench": Command(BenchConfig, "scd_world.benchmark.benchmark:bench", {"model": "small"}),
    "probe": Command(ProbeConfig, "scd_world.probes.probe:probe", {"data": "zarr"}),
    "demo": Command(DemoConfig, "scd_world.demo.demo:demo"),
}
PRESETS: dict[str, dict[str, Any]] = {"model": MODELS, "prior": PRIORS, "data": DATA}


def store_configs() -> None:
    """Registers all commands' configs; in a command's own process its own alone, because Hydra copies all
    that is stored dozens of times before it shows --help."""
    called = Path(sys.argv[0]).name.removeprefix("scd-")
    commands = {called: COMMANDS[called]} if called in COMMANDS else COMMANDS
    store: Any = ConfigStore.instance().store
    for group in {group for command in commands.values() for group in command.presets}:
        for preset, values in PRESETS[group].items():
            store(group=group, name=preset, node=asdict(values))
    for name, command in commands.items():
        store(name=f"{name}_schema", node=editable(command.config))
        defaults = [f"{name}_schema", *({group: choice} for group, choice in command.presets.items()), *QUIET]
        places = HERE | ({"sweep": {"dir": "${out}", "subdir": "."}} if name == "rank" else {})
        store(name=name, node={"defaults": defaults, "hydra": places | {"help": {"app_name": f"scd-{name}"}}})


def main_of(name: str) -> Callable[[], None]:
    """The entry point of a command: settings from the command line, then what it runs."""

    command = COMMANDS[name]

    @hydra.main(version_base="1.3", config_path=None, config_name=name)
    @plain_errors()
    def run(config: DictConfig) -> None:
        settings = OmegaConf.to_object(config)  # the dataclass: from here on, Hydra is out of the game
        module, _, function = command.run.partition(":")
        getattr(import_module(module), function)(settings)

    def main() -> None:
        with plain_errors():
            check_names(command.config, command.presets, sys.argv[1:])
        run()

    return main


store_configs()

record, data, train, distill, evaluate = map(main_of, ("record", "data", "train", "distill", "evaluate"))
rollout, rank, bench, probe, demo = map(main_of, ("rollout", "rank", "bench", "probe", "demo"))
