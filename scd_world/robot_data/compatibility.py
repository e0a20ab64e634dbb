"""Whether the data at hand is of the robot, cameras and units that a model was trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from scd_world.robot_data.schema import DataSchema
from scd_world.robot_data.stride import stride_between
from scd_world.utils.checks import complain

NAMES = ("cameras", "agent_pos", "environment_state", "action")  # of a schema, by which a robot is known


def check_actions(world: DataSchema, names: Sequence[str], name_of_data: object) -> None:
    """Refuses data of another robot, which another number of actions tells: ValueError with both."""
    if len(names) != len(world.action):
        raise ValueError(
            f"{name_of_data} has {len(names)} actions ({', '.join(names)}), this world takes "
            f"{len(world.action)} ({', '.join(world.action)}): it is of another robot"
        )


def check_rate(
    world: DataSchema,
    fps: float,
    name_of_data: object,
    stride: int = 1,
    cure: str = "data.stride={} reads it so",
    use: str = "evaluate it on data",
) -> None:
    """Refuses data of another frame rate than the world's: ValueError with the stride that would do, if one
    does.

    stride: how many recorded frames are a step of the data already. cure: how it is read with another one;
    use: what is done with data, where no stride will do.
    """
    if fps == world.fps:
        return
    frames = stride_between(fps * stride, world.fps)
    cure = cure.format(frames) if frames > 1 else f"{use} of its own rate"
    complain(f"{name_of_data} has fps {fps:g}, this world was trained with {world.fps:g}: {cure}")


def check_names(world: DataSchema, found: Mapping[str, Sequence[str]], name_of_data: object) -> None:
    """Refuses data of other cameras, states or actions: ValueError with both. found: by a schema's names."""
    for name, has in found.items():
        if tuple(has) != (wants := getattr(world, name)):
            complain(
                f"{name_of_data} has {name} {tuple(has)}, this world was trained with {wants}: it needs data "
                "of its own kind, the order of names included"
            )


def check_schema(world: DataSchema, data: DataSchema, name_of_data: object) -> None:
    """Refuses data that a world cannot read as its own: ValueError that names what differs."""
    check_actions(world, data.action, name_of_data)
    cure = "build it with data.stride={} (scd-data), which takes every so many frames"
    check_rate(world, data.fps, name_of_data, cure=cure)
    check_names(world, {name: getattr(data, name) for name in NAMES}, name_of_data)
    if (data.height, data.width) != (world.height, world.width):
        side = min(world.height, world.width)
        raise ValueError(
            f"{name_of_data} has frames of {data.height}×{data.width}, this world was trained with "
            f"{world.height}×{world.width}: a recording is read in that size (data=lerobot data.root=…), and "
            f"scd-data builds a store of it with data.image_size={side}"
        )
    if data.views != world.views:
        raise ValueError(
            f"{name_of_data} has views {data.views}, this world was trained with {world.views}: its images "
            "have another shape, or were read with another data.resize"
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
