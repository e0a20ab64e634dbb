"""Which classes a config means: SCD or one of its baselines, around a state prior or none."""

from __future__ import annotations

from scd_world.baselines.causal_dit import CausalDiT
from scd_world.baselines.copy_last import CopyLast
from scd_world.baselines.diffusion_forcing import DiffusionForcing
from scd_world.baselines.far import FAR
from scd_world.baselines.far_long import FARLong
from scd_world.baselines.regression import Regression
from scd_world.model.config import ModelConfig
from scd_world.model.prior import NoPrior, StatePrior
from scd_world.model.scd import SCD
from scd_world.model.world_model import WorldModel
from scd_world.prior.config import PriorConfig
from scd_world.prior.state_prior import PretrainedStatePrior
from scd_world.robot_data.normalizer import Normalizer
from scd_world.robot_data.schema import DataSchema

CORES: dict[str, type[SCD] | type[CausalDiT] | type[CopyLast]] = {
    "scd": SCD,
    "causal_dit": CausalDiT,
    "far": FAR,
    "far_long": FARLong,
    "diffusion_forcing": DiffusionForcing,
    "regression": Regression,
    "copy_last": CopyLast,
}


def build_model(
    config: ModelConfig, prior: PriorConfig, schema: DataSchema, normalizer: Normalizer
) -> WorldModel:
    """Builds the world model that these settings mean, with random weights."""
    state_prior = build_prior(config, prior, normalizer)
    core = CORES[config.architecture](config, schema, normalizer, state_prior)
    return WorldModel(schema, normalizer, state_prior, core)


def build_prior(config: ModelConfig, prior: PriorConfig, normalizer: Normalizer) -> StatePrior:
    """Builds the state prior, or none: copy-last has none whatever is asked, for its state, too, stays."""
    if prior.kind == "none" or config.architecture == "copy_last":
        return NoPrior(normalizer)
    return PretrainedStatePrior(prior, normalizer, config.head == "conv", config.sees_commands)
