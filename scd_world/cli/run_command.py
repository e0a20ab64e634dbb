"""The eleven commands, and how one runs: what it needs is imported late, so that --help answers at once."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import hydra
from hydra import compose, initialize
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig

from scd_datasets.config import DATA, CheckConfig
from scd_world.benchmark.config import BenchConfig
from scd_world.cli.endings import plain_errors
from scd_world.cli.help import help_text
from scd_world.cli.hydra_config import HERE, QUIET, editable, to_settings
from scd_world.cli.overrides import read_overrides
from scd_world.codec.config import CODECS
from scd_world.demo.config import DemoConfig
from scd_world.distill.config import DistillConfig
from scd_world.evaluation.config import EvaluateConfig
from scd_world.model.config import MODELS
from scd_world.play.config import PlayConfig
from scd_world.prior.config import PRIORS
from scd_world.probes.config import ProbeConfig
from scd_world.ranking.config import RankConfig
from scd_world.rollouts.config import RecordConfig, RolloutConfig
from scd_world.training.config import TrainConfig


class Command(NamedTuple):
    """A command: the dataclass of its settings, the function that they are handed to, and what stays of its
    work where it is interrupted."""

    config: type
    run: str  # module:function, imported when the settings are known to be right
    kept: str
    presets: Mapping[str, str] = MappingProxyType({})  # config group → its default choice
    choose: str = ""  # module:function, settings and what was typed → settings: for what was left open


HELP = {"--help", "-h"}
HYDRAS = re.compile(r"-|hydra|.*\$\{hydra:")  # a flag, a setting of Hydra's own, or a value that asks for one
RESUMES = "every finished stage and checkpoint is kept; the same command goes on"
REPEATS = "the report is not finished; the same command begins it again"
COMMANDS = {
    "record": Command(
        RecordConfig,
        "scd_world.rollouts.record:run_record",
        "every published episode is kept; the same command goes on",
    ),
    "data": Command(
        CheckConfig,
        "scd_datasets.preparation.build:run_check",
        "a store appears only when it is complete, and an earlier one is as it was; the same command goes on "
        "where it was, in whole thousands of frames (one with build=false begins again)",
        choose="scd_world.cli.choose_settings:choose_image_size",
    ),
    "train": Command(
        TrainConfig,
        "scd_world.training.trainer:train",
        RESUMES,
        {"codec": "identity", "model": "small", "prior": "state", "data": "lerobot"},
        "scd_world.cli.choose_settings:choose_settings",
    ),
    "distill": Command(DistillConfig, "scd_world.distill.distill:distill", RESUMES, {"data": "zarr"}),
    "evaluate": Command(EvaluateConfig, "scd_world.evaluation.evaluate:evaluate", REPEATS, {"data": "zarr"}),
    "rollout": Command(
        RolloutConfig,
        "scd_world.rollouts.imagine:run_rollout",
        "every published episode is kept; the same command goes on",
    ),
    "play": Command(
        PlayConfig,
        "scd_world.play.play:play",
        "every episode that was written is kept",
    ),
    "rank": Command(
        RankConfig,
        "scd_world.ranking.rank:rank",
        "every policy that was played to the end is kept; the same command plays the others",
    ),
    "bench": Command(BenchConfig, "scd_world.benchmark.benchmark:bench", REPEATS, {"model": "small"}),
    "probe": Command(ProbeConfig, "scd_world.probes.probe:probe", REPEATS, {"data": "zarr"}),
    "demo": Command(
        DemoConfig,
        "scd_world.demo.demo:demo",
        "what is in its folder is complete but for the last file; the same command goes on",
    ),
}
PRESETS: dict[str, dict[str, Any]] = {"codec": CODECS, "model": MODELS, "prior": PRIORS, "data": DATA}


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


def load(place: str) -> Callable[..., Any]:
    """Imports module:function."""
    module, _, function = place.partition(":")
    return getattr(import_module(module), function)


def run_command(name: str) -> None:
    """Runs a command: settings from the command line, then what it does with them."""
    command = COMMANDS[name]
    with plain_errors():
        choices = {group: PRESETS[group] for group in command.presets}
        typed = read_overrides(command.config, choices, sys.argv[1:])
        given = [word for word in typed if word not in HELP]
        if any(HYDRAS.match(word) for word in given):
            sys.argv[1:] = typed
            run_by_hydra(name)
        elif given != typed:
            names = {group: list(choices[group]) for group in command.presets}
            print(help_text(name, command.config, names, given))
        else:  # composed once, where Hydra's own main function does it twice
            try:
                with initialize(version_base="1.3", config_path=None):
                    config = compose(config_name=name, overrides=typed)
            except HydraException as error:
                raise ValueError(str(error)) from error
            hand_over(name, config, typed)


def run_by_hydra(name: str) -> None:
    """Runs a command that was given Hydra's own flags and settings: sweeps, launchers, folders of presets."""

    @hydra.main(version_base="1.3", config_path=None, config_name=name)
    def run(config: DictConfig) -> None:
        # No decorator: a launcher may send this to another machine.
        with plain_errors():  # in here as well: Hydra would show a traceback
            hand_over(name, config, HydraConfig.get().overrides.task)

    run()


def hand_over(name: str, config: DictConfig, typed: Sequence[str]) -> None:
    """Hands a command's settings to what it runs. From here on, Hydra is out of the game.

    typed: the words name=value that were given.
    """
    command = COMMANDS[name]
    choose = load(command.choose) if command.choose else None
    values = dict(word.split("=", 1) for word in typed)
    settings = to_settings(config, command.config, f"scd-{name}", choose, values)
    load(command.run)(settings)  # imported once they are known to be right


store_configs()
