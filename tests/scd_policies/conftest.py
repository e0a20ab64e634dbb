"""A world without a state prior."""

import pytest

from scd_world.prior.config import PriorConfig
from scd_world.world.build_model import build_model
from scd_world.world.world import World


@pytest.fixture
def plain_world(world: World) -> World:
    model = build_model(world.config, PriorConfig(kind="none"), world.schema, world.stats)
    return World(model.eval(), world.stats, world.starts)
