"""A world without a state prior; what every policy that acts on rows has to keep."""

from collections.abc import Callable

import numpy as np
import pytest

from scd_policies.policy import Policy
from scd_world.prior.config import PriorConfig
from scd_world.world.build_model import build_model
from scd_world.world.world import World


@pytest.fixture
def plain_world(world: World) -> World:
    model = build_model(world.config, PriorConfig(kind="none"), world.schema, world.stats)
    return World(model.eval(), world.stats, world.starts)


def actions_of_rows(make_policy: Callable[[], Policy], obs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Asks a policy three times of a batch, and asserts that each row alone is answered the same, to the last
    bit; gives its answers."""
    together, alone = make_policy(), make_policy()
    rows = len(obs["agent_pos"])
    together.reset(range(rows))
    actions = [together.act(obs) for _ in range(3)]
    for row in range(rows):
        alone.reset([row])
        for action in actions:
            one = alone.act({key: value[row : row + 1] for key, value in obs.items()})
            np.testing.assert_array_equal(one[0], action[row])
    return actions
