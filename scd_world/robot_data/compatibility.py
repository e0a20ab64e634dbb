"""Whether the data at hand is of the robot, cameras and units that a model was taught with."""

from __future__ import annotations

from dataclasses import replace

from scd_datasets.store.store import WindowStore
from scd_world.robot_data.schema import DataSchema


def check_schema(world: DataSchema, store: WindowStore) -> None:
    """Refuses data that the world cannot read as its own."""
    for name in ("fps", "cameras", "height", "width", "agent_pos", "environment_state", "action", "views"):
        has, wants = getattr(store.schema, name), getattr(world, name)
        if has != wants:
            raise ValueError(
                f"{store.path} has {name} {has}, this world was trained with {wants}; evaluate it on data "
                "of its own kind (image size and the order of names included)"
            )
    if len(world.tasks) > 1 and store.schema.tasks != world.tasks:
        raise ValueError(
            f"{store.path} has the tasks {list(store.schema.tasks)}, this world was taught "
            f"{list(world.tasks)} and is told which by its number: evaluate it on all of them"
        )


def scored_schema(world: DataSchema, data: DataSchema) -> DataSchema:
    """The data's, less the outcomes that the world was not taught: what its heads say of those is nothing."""
    both = {name: getattr(world, name) and getattr(data, name) for name in ("reward", "success")}
    return replace(data, **both)
