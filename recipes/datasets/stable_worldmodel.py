"""Next to a peer: our imagined PushT and stable-worldmodel's simulator, both inside its `World`.

pip install 'lerobot_env_scd_world[pusht,swm]'
python recipes/datasets/stable_worldmodel.py runs/beside [episodes] [steps]

Each is played by its random policy, recorded to HDF5, checked, and written as a window store of ours.
"""

import sys
from pathlib import Path
from typing import Any

import pymunk
import stable_worldmodel as swm
from stable_worldmodel.policy import RandomPolicy

import scd_envs  # noqa: F401 (registers our ids, as the import above does theirs)
from scd_datasets.preparation.check import check_dataset
from scd_datasets.sources.hdf5.recording import Hdf5Recording

SIDES: dict[str, tuple[str, dict[str, Any]]] = {
    "imagined": ("scd_world/PushT-v0", {"add_pixels": False}),  # our observation has pixels already
    "simulated": ("swm/PushT-v1", {"image_shape": (96, 96)}),
}


def let_their_pusht_run() -> None:
    """gym-pusht holds pymunk at version 6; their PushT asks it for a method by the name it has in 7."""
    if int(pymunk.version.split(".")[0]) >= 7:
        return

    def on_collision(space: pymunk.Space, a: int, b: int, post_solve: Any) -> None:
        space.add_collision_handler(a, b).post_solve = post_solve

    space_of_7: Any = pymunk.Space
    space_of_7.on_collision = on_collision


def play(name: str, out: Path, episodes: int, steps: int) -> dict[str, str]:
    """Evaluates one side, records it, and makes a store of the recording; gives what to print."""
    env, settings = SIDES[name]
    world = swm.World(env, num_envs=2, max_episode_steps=steps, goal_conditioned=False, **settings)
    world.set_policy(RandomPolicy(seed=0))
    result = world.evaluate(episodes=episodes, seed=0)
    file = out / f"{name}.h5"
    file.unlink(missing_ok=True)  # their writer would append
    world.collect(file, episodes=episodes, seed=0, format="hdf5")
    world.close()
    report = check_dataset(Hdf5Recording(file, fps=10), file.with_suffix(".zarr"))
    print(f"\n{report.table()}\n")
    schema, lengths = report.schema, report.store.lengths
    ranges = zip(schema.action_low, schema.action_high, strict=True)
    return {
        "environment": env,
        "success rate": f"{result['success_rate']:.0f} % of {episodes}",
        "recorded": f"{len(lengths)} episodes, {lengths.sum()} steps",
        "pixels": f"{schema.height} × {schema.width}, {', '.join(schema.cameras)}",
        "agent_pos": str(len(schema.agent_pos)),
        "environment_state": str(len(schema.environment_state)),
        "action": ", ".join(f"{low:.3g} … {high:.3g}" for low, high in ranges),
    }


def main(out: Path, episodes: int = 4, steps: int = 50) -> None:
    let_their_pusht_run()
    out.mkdir(parents=True, exist_ok=True)
    shown = {name: play(name, out, episodes, steps) for name in SIDES}
    ours, theirs = shown.values()
    for row in ours:
        print(f"{row:<18}  {ours[row]:<28}  {theirs[row]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
