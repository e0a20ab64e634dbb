"""The commands scd-record and scd-data: thin mains. They import late, so that --help answers at once."""

from __future__ import annotations

from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from scd_datasets.config import CheckConfig, RecordConfig
from scd_world.hydra_node import HERE, QUIET, editable, plain_errors


def store_configs() -> None:
    store: Any = ConfigStore.instance().store
    for name, schema in {"record": RecordConfig, "data": CheckConfig}.items():
        store(name=f"{name}_schema", node=editable(schema))
        defaults = [f"{name}_schema", *QUIET]
        store(name=name, node={"defaults": defaults, "hydra": HERE | {"help": {"app_name": f"scd-{name}"}}})


store_configs()


@hydra.main(version_base="1.3", config_path=None, config_name="record")
@plain_errors()
def record(config: DictConfig) -> None:
    settings: Any = OmegaConf.to_object(config)  # a RecordConfig: from here on, Hydra is out of the game
    from scd_datasets.lerobot_reader import LeRobotFolder
    from scd_datasets.record import record as run
    from scd_datasets.recording import conclude

    notes = run(settings)
    conclude(notes, settings.episodes)
    if LeRobotFolder(settings.out).cameras:
        print(f"next: scd-data data.root={settings.out}")
    else:
        print(f"next, beside recordings with pictures: scd-train … body.more=[{settings.out}]")


@hydra.main(version_base="1.3", config_path=None, config_name="data")
@plain_errors()
def data(config: DictConfig) -> None:
    settings: Any = OmegaConf.to_object(config)
    from scd_datasets.check import run_check

    run_check(settings)
