r"""Two versions of this project take turns in one process: updates of a training, steps of a world.

    git worktree add ../before <commit>
    OMP_NUM_THREADS=1 python recipes/benchmark/two_versions.py ../before --world runs/a/world \
        --store runs/a/latents.zarr

Each turn is timed in processor time, which leaves out what other programs took; a ratio is the median over
the turns, with its quartiles. How far losses, images or states are from those before is printed beside.
"""

from __future__ import annotations

import argparse
import importlib
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parents[2]
PACKAGES = ("scd_world", "scd_envs", "scd_datasets", "scd_policies")
FOLDERS = (".", "envs", "datasets", "policies")


class Version:
    """A checkout of the project; inside of `with` its modules are what imports find."""

    def __init__(self, root: Path) -> None:
        self.paths = [str((root / folder).resolve()) for folder in FOLDERS]
        self.modules: dict[str, ModuleType] = {}
        self.others: dict[str, ModuleType] = {}
        with self:
            import scd_world

            if scd_world.__path__[0] != str(Path(self.paths[0], "scd_world")):
                raise SystemExit(f"{root} is no checkout of this project: {scd_world.__path__} was imported")

    def __enter__(self) -> None:
        self.others = take_modules()
        sys.modules.update(self.modules)
        sys.path[:0] = self.paths
        importlib.invalidate_caches()

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.modules = take_modules()
        sys.modules.update(self.others)
        del sys.path[: len(self.paths)]


def take_modules() -> dict[str, ModuleType]:
    """Takes the project's modules out of those that are imported."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in PACKAGES}


def updates(version: Version, world: str, store: str) -> Callable[[int], dict[str, Any]]:
    """Gives what does update number i of a training that goes on from a world."""
    with version:
        from scd_datasets.store.loader import WindowLoader
        from scd_datasets.store.store import WindowStore
        from scd_world.training.config import TrainConfig
        from scd_world.training.distributed import make_accelerator
        from scd_world.training.learner import Learner
        from scd_world.world.world import World

        loaded, windows = World.load(world), WindowStore.open(store)
        model = loaded.model.train().requires_grad_(True)
        config = TrainConfig(
            out="", model=model.config, prior=loaded.prior_config, batch_size=8, device="cpu"
        )
        learner = Learner(model, loaded.stats, config, make_accelerator(config))
        episodes = np.arange(len(windows.lengths))
        anchors = model.config.anchor_frame
        batch = WindowLoader(windows, episodes, 8, 8, 0, 0.5, anchors=anchors).batch(0)

    def update(step: int) -> dict[str, Any]:
        with version:
            values, _ = learner.update(batch, step, 1e-4)
        return {"loss": float(values["loss"])}

    return update


def steps(version: Version, world: str, rows: int) -> Callable[[int], dict[str, Any]]:
    """Gives what steps a world of so many rows through Gymnasium."""
    with version:
        from scd_envs.vector_env import WorldVectorEnv

        envs = WorldVectorEnv(world, num_envs=rows, device="cpu")
        envs.reset(seed=0)
    envs.action_space.seed(0)
    actions = [envs.action_space.sample() for _ in range(16)]

    def step(i: int) -> dict[str, Any]:
        with version:
            obs = envs.step(actions[i % len(actions)])[0]
        pixels = obs["pixels"]
        images = list(pixels.values()) if isinstance(pixels, dict) else [pixels]
        return {"pixels": np.stack(images).astype(int), "state": obs["agent_pos"]}

    return step


def watch_memory(name: str, update: Callable[[int], dict[str, Any]], turns: int) -> None:
    """Prints what an update takes, how much of it the system, and how many pages it had to bring."""
    taken = []
    for i in range(turns + 3):
        before = resource.getrusage(resource.RUSAGE_SELF)
        update(i)
        after = resource.getrusage(resource.RUSAGE_SELF)
        pairs = ((getattr(after, key), getattr(before, key)) for key in ("ru_utime", "ru_stime", "ru_minflt"))
        taken.append([late - early for late, early in pairs])
    own, system, pages = np.median(taken[3:], axis=0)
    print(
        f"{name}: {1e3 * (own + system):.0f} ms, {1e3 * system:.0f} of them the system's, {pages:.0f} pages"
    )


def take_turns(name: str, versions: dict[str, Callable[[int], dict[str, Any]]], turns: int) -> None:
    """Prints how many times as fast as the first version each is, and how far its values are from it."""
    seconds: dict[str, list[float]] = {version: [] for version in versions}
    apart = dict.fromkeys(versions, 0.0)
    for i in range(turns + 1):
        first: dict[str, Any] = {}
        for version in list(versions)[:: 1 if i % 2 else -1]:
            began = time.process_time()
            values = versions[version](i)
            if i:  # the first one warms up
                seconds[version].append(time.process_time() - began)
            first = first or values
            far = max(float(np.abs(np.subtract(values[key], first[key])).max()) for key in first)
            apart[version] = max(apart[version], far)
    reference = np.array(next(iter(seconds.values())))
    for version, taken in seconds.items():
        ratio = np.quantile(reference / np.array(taken), (0.25, 0.5, 0.75))
        print(
            f"{name:24} {version:28} {1e3 * np.median(taken):8.1f} ms  {ratio[1]:.2f} times as fast "
            f"({ratio[0]:.2f} to {ratio[2]:.2f}), apart by at most {apart[version]:.1e}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="a checkout of the version to compare with")
    parser.add_argument("--world", required=True)
    parser.add_argument("--store", help="windows that it trains on, its latents where it has a codec")
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--turns", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    before, now = Version(args.before), Version(HERE)
    if args.store:
        update = updates(before, args.world, args.store)
        watch_memory("an update before", update, args.turns)
        with now:
            from scd_world.utils.allocator import keep_freed_memory

            keep_freed_memory()
        watch_memory("the same, freed memory kept", update, args.turns)
        versions = {
            "before": updates(before, args.world, args.store),
            "now": updates(now, args.world, args.store),
        }
        take_turns("update of 64 frames", versions, args.turns)
    for rows in args.rows:
        both = {"before": steps(before, args.world, rows), "now": steps(now, args.world, rows)}
        take_turns(f"step of {rows} rows", both, args.turns)


if __name__ == "__main__":
    main()
