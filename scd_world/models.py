"""Which class a config means: SCD, or one of its rivals."""

from __future__ import annotations

from scd_world.base_model import BaseModel
from scd_world.baselines.causal_dit import CausalDiT
from scd_world.baselines.copy_last import CopyLast
from scd_world.baselines.diffusion_forcing import DiffusionForcing
from scd_world.baselines.far import FAR
from scd_world.baselines.far_long import FARLong
from scd_world.baselines.regression import Regression
from scd_world.model_config import ModelConfig
from scd_world.schema import DataSchema
from scd_world.stats import Stats
from scd_world.world_model import WorldModel

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
