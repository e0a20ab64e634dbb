"""What a picture makes of a joint that is moved by itself, against MuJoCo, where that can be tried out.

    python recipes/so101/joint_alone.py data/so101 data/so101.zarr runs/a/world runs/b/world --out alone.png

Every episode that all worlds hold out is played again from its seed up to frame --start. From there on either
the recorded actions go on, or the last one is held with one joint's target moved by a quarter of its recorded
range, towards the farther end. World and simulator do the same; the world was shown four recorded frames.
Printed is the mean PSNR of the imagined pictures, beside a copy of the last shown frame; the picture has the
last step of the first episodes, MuJoCo's above the worlds'.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scd_datasets.store.store import WindowStore
from scd_envs import simulators
from scd_world.evaluation.open_loop import (
    RowNoise,
    Window,
    WindowBatch,
    frames_of,
    imagine_steps,
    load_batch,
    start_windows,
)
from scd_world.metrics.image import psnr
from scd_world.world.world import World

CONTEXT, STEPS, MOVED = 4, 16, 0.25
TOLD = (1, 4, 8, 16)
STILL = 2.0  # gray levels
SHOWN = 3  # episodes in the picture


def plans(world: World, batch: WindowBatch) -> dict[str, Tensor]:
    """Gives name → actions (B, STEPS, A) in raw units: the recorded ones, and one joint moved at a time."""
    low, high = world.stats.action_low, world.stats.action_high
    recorded = batch.future[:, :STEPS]
    held = recorded[:, :1].expand_as(recorded)
    found = {"recorded": recorded, "none": held}
    for joint, name in enumerate(world.schema.action):
        moved = held.clone()
        up = held[..., joint] < (low[joint] + high[joint]) / 2
        moved[..., joint] += torch.where(up, MOVED, -MOVED) * (high - low)[joint]
        found[name] = moved
    return found


def simulate(seed: int, before: np.ndarray, actions: np.ndarray, size: int) -> np.ndarray:
    """Plays an episode from its seed, then other actions: (STEPS, H, W, 3) uint8."""
    env = simulators.make("so101", size=size, cameras=("front",), max_episode_steps=1000)
    env.reset(seed=seed)
    for action in before:
        env.step(action)
    frames = np.stack([env.step(action)[0]["pixels"] for action in actions])
    env.close()
    return frames


def quality(frames: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Gives the mean PSNR (T,) of frames uint8 (B, T, H, W, 3) at each step, dB."""
    pairs = [torch.from_numpy(x).flatten(0, 1).permute(0, 3, 1, 2) / 127.5 for x in (frames, true)]
    return psnr(*pairs).view(frames.shape[:2]).mean(0).numpy()


def elsewhere(frames: dict[str, np.ndarray], true: dict[str, np.ndarray], name: str) -> float:
    """Gives by how much a world changes, at the last step, what the joint does not change in MuJoCo."""
    changes = [np.abs(x[name][:, -1].astype(float) - x["none"][:, -1]).max(-1) for x in (true, frames)]
    return float(changes[1][changes[0] <= STILL].mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recording")
    parser.add_argument("store")
    parser.add_argument("worlds", nargs="+")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--start", type=int, default=5, help="the last shown frame")
    args = parser.parse_args()
    torch.set_num_threads(1)
    store = WindowStore.open(args.store)
    notes = json.loads((Path(args.recording) / "meta/recording.json").read_text(encoding="utf-8"))["episodes"]
    worlds = {path: World.load(path, device="cpu") for path in args.worlds}
    first_world = next(iter(worlds.values()))
    held_out = set.intersection(*(set(world.provenance["held_out_episodes"]) for world in worlds.values()))
    episodes = np.flatnonzero(np.isin(store.episode_index, [*held_out]))
    episodes = episodes[store.lengths[episodes] > args.start + STEPS]
    windows = [Window(int(episode), args.start, STEPS) for episode in episodes]
    batch = load_batch(store, windows, CONTEXT, "cpu", first_world.codec)
    futures = plans(first_world, batch)
    names, size = list(futures), first_world.schema.height

    def played(actions: Tensor) -> np.ndarray:
        rows = []
        for row, window in enumerate(windows):
            first = int(store.starts[window.episode])
            before = store.action[first : first + args.start]
            seed = notes[int(store.episode_index[window.episode])]["seed"]
            rows.append(simulate(seed, before, actions[row].numpy(), size))
        return np.stack(rows)

    true = {name: played(actions) for name, actions in futures.items()}
    last = batch.pixels[:, CONTEXT - 1, 0].numpy()
    again = quality(batch.pixels[:, CONTEXT : CONTEXT + STEPS, 0].numpy(), true["recorded"])
    print(f"{len(windows)} held-out windows; MuJoCo, played again, is as recorded to {again.min():.1f} dB")
    imagined = {"copy": {name: np.repeat(last[:, None], STEPS, 1) for name in names}}
    for path, world in worlds.items():
        own = load_batch(store, windows, CONTEXT, "cpu", world.codec)
        imagined[path] = {}
        for name, actions in futures.items():
            noise = RowNoise(windows, world.frame_shape, 0)
            steps = imagine_steps(world, start_windows(world, own), actions, noise, None)
            imagined[path][name] = np.stack([frames_of(world, s)[:, 0] for s in steps], 1)
    alone = names[2:]
    print(" " * 16 + " ".join(f"{step:>6}" for step in TOLD) + "  changed where nothing moved, gray levels")
    for path, frames in imagined.items():
        print(path)
        each = {name: quality(frames[name], true[name]) for name in names}
        each["one joint"] = np.mean([each[name] for name in alone], 0)
        spurious = {name: elsewhere(frames, true, name) for name in alone}
        spurious["one joint"] = float(np.mean([*spurious.values()]))
        for name in ("recorded", "none", "one joint", *alone):
            figures = " ".join(f"{each[name][step - 1]:6.2f}" for step in TOLD)
            print(f"{name:>15} {figures}" + (f" {spurious[name]:7.2f}" if name in spurious else ""))
    if args.out is not None:
        rows = []
        for shown in range(min(SHOWN, len(windows))):
            for frames in (true, *(imagined[path] for path in args.worlds)):
                rows.append(np.concatenate([last[shown], *(frames[name][shown, -1] for name in names)], 1))
        picture = Image.fromarray(np.concatenate(rows))
        picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST).save(args.out)


if __name__ == "__main__":
    main()
