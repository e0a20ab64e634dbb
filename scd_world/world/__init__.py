"""A model on disk with all that it takes to step it: `from scd_world.world import World`."""

from scd_world.world.world import World

__all__ = ["World"]
