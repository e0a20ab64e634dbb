"""scd_envs: a trained world, stepped as a Gymnasium environment. Importing it only registers the ids.

    import gymnasium, scd_envs
    env  = gymnasium.make("scd_world/PushT-v0")                                  # a shipped world
    env  = gymnasium.make("scd_world/G1-v0")                                     # another: a real robot's
    env  = gymnasium.make("scd_world/World-v0", world="runs/my_robot/world")     # any world
    envs = gymnasium.make_vec("scd_world/World-v0", num_envs=64, world=..., device="cuda", num_steps=4)

`world_env.WorldEnv` is the single environment; `vector_env.WorldVectorEnv` runs all its rows in one batched
model; both are built on `episodes.ImaginedEpisodes`. `settings` holds what a user can set; `spaces` turns a
world's schema into Gymnasium spaces and checks actions.
"""

from pathlib import Path

import gymnasium

import scd_world  # noqa: F401  (how threads wait, before torch is imported)

WORLDS = Path(__file__).parent / "worlds"
PUSHT_WORLD, G1_WORLD = WORLDS / "pusht", WORLDS / "g1"
SHIPPED = {"PushT-v0": {"world": str(PUSHT_WORLD)}, "G1-v0": {"world": str(G1_WORLD)}}

for _id, _kwargs in {"World-v0": {}, **SHIPPED}.items():
    gymnasium.register(
        id=f"scd_world/{_id}",
        entry_point="scd_envs.world_env:WorldEnv",  # strings: torch is imported by the first `make`
        vector_entry_point="scd_envs.vector_env:WorldVectorEnv",
        kwargs=_kwargs,
    )
