"""Whether the data at hand is of the robot, cameras and units that a model was trained with."""

from __future__ import annotations

from dataclasses import replace

from scd_world.robot_data.schema import DataSchema


def check_schema(world: DataSchema, data: DataSchema, name_of_data: object) -> None:
    """Refuses data that a world cannot read as its own: ValueError that names what differs."""
    for name in ("fps", "cameras", "height", "width", "agent_pos", "environment_state", "action", "views"):
        has, wants = getattr(data, name), getattr(world, name)
        if has != wants:
            raise ValueError(
                f"{name_of_data} has {name} {has}, this world was trained with {wants}; evaluate it on data "
                "of its own kind (image size and the order of names included)"
            )
    if len(world.tasks) > 1 and data.tasks != world.tasks:
        raise ValueError(
            f"{name_of_data} has the tasks {list(data.tasks)}, this world learnt "
            f"{list(world.tasks)} and knows them by their numbers: evaluate it on all of them"
        )


def scored_schema(world: DataSchema, data: DataSchema) -> DataSchema:
    """Gives the data's schema less the outcomes that the world has not learnt: its heads are untrained
    there."""
    both = {name: getattr(world, name) and getattr(data, name) for name in ("reward", "success")}
    return replace(data, **both)
