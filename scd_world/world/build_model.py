"""Which class a config means: SCD, or one of its rivals."""

from __future__ import annotations

from scd_world.baselines.causal_dit import CausalDiT
from scd_world.baselines.copy_last import CopyLast
from scd_world.baselines.diffusion_forcing import DiffusionForcing
from scd_world.baselines.far import FAR
from scd_world.baselines.far_long import FARLong
from scd_world.baselines.regression import Regression
from scd_world.model.config import ModelConfig
from scd_world.model.scd import WorldModel
from scd_world.model.world_model import BaseModel
from scd_world.robot_data.normalizer import Stats
from scd_world.robot_data.schema import DataSchema

CLASSES: dict[str, type[BaseModel]] = {
    "scd": WorldModel,
    "causal_dit": CausalDiT,
    "far": FAR,
    "far_long": FARLong,
    "diffusion_forcing": DiffusionForcing,
    "regression": Regression,
    "copy_last": CopyLast,
}


def make_model(config: ModelConfig, schema: DataSchema, stats: Stats) -> BaseModel:
    return CLASSES[config.kind](config, schema, stats)
