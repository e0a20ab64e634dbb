"""What limits a PushT world's images: the same windows, drawn in other ways.

    python recipes/drawn_by.py envs/scd_envs/worlds/pusht data/pusht.zarr [windows]

The world draws what it imagines; so do its sketch alone, and the simulator, which draws perfectly what was
imagined; and the sketch draws the recorded states, which are perfectly foretold. What is lost between two
rows is what one part of the world costs.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from scd_datasets.store.store import WindowStore
from scd_envs.simulators.pusht import PushT
from scd_world.evaluation.open_loop import (
    RowNoise,
    WindowBatch,
    choose_windows,
    imagine_steps,
    load_batch,
    start_windows,
)
from scd_world.evaluation.splits import select_eval_episodes
from scd_world.metrics.image import psnr, ssim
from scd_world.robot_data.normalizer import decode_pixels, encode_pixels
from scd_world.world.world import World

CONTEXT, HORIZON, ROWS = 4, 64, 16
AT = (1, 4, 16, 32, 64)
WAYS = (
    "this world, of the imagined state",
    "its sketch alone, of the imagined state",
    "the simulator, of the imagined state",
    "its sketch alone, of the recorded state",
)


def main(source: str, data: str, windows: int = 64) -> None:
    world, store = World.load(source), WindowStore.open(data)
    held_out = select_eval_episodes(world.provenance, store, None).episodes
    held_out = held_out[store.lengths[held_out] > CONTEXT]
    lots = np.linspace(0, len(held_out) - 1, min(windows, len(held_out))).round().astype(int)
    chosen = choose_windows(store.lengths, held_out[lots], CONTEXT, HORIZON, 1)
    simulator = PushT(size=world.schema.width)
    parts = [
        measure(world, simulator, load_batch(store, chosen[i : i + ROWS], CONTEXT, "cpu"))
        for i in range(0, len(chosen), ROWS)
    ]
    found, block = (np.concatenate(part) for part in zip(*parts, strict=True))
    print(f"{source}: {len(chosen)} windows\n")
    at = [f"{h}" for h in AT]
    print(f"| drawn by | {' | '.join(at)} | mean |\n|---|{'---:|' * (len(AT) + 1)}")
    for i, way in enumerate(WAYS):
        of_step = np.nanmean(found[:, i], axis=0)  # (steps, 2)
        cells = [f"{of_step[h - 1, 0]:.1f}, {of_step[h - 1, 1]:.4f}" for h in AT]
        mean = of_step.mean(0)
        print(f"| {way} | {' | '.join(cells)} | {mean[0]:.2f}, {mean[1]:.4f} |")
    cells = [f"{np.nanmedian(block[:, h - 1]):.2f}, {np.nanmean(block[:, h - 1]):.2f}" for h in AT]
    print(f"| block error, px of 512: median, mean | {' | '.join(cells)} | |")


@torch.no_grad()
def measure(world: World, simulator: PushT, batch: WindowBatch) -> tuple[np.ndarray, np.ndarray]:
    """PSNR and SSIM (B, ways, HORIZON, 2), pictures rounded to 8 bits; block error (B, HORIZON); NaN where
    nothing was recorded."""
    B = len(batch.windows)
    found, block = np.full((B, len(WAYS), HORIZON, 2), np.nan), np.full((B, HORIZON), np.nan)
    noise = RowNoise(batch.windows, world.frame_shape, 0)
    for h, s in enumerate(imagine_steps(world, start_windows(world, batch), batch.future, noise, None)):
        if h == HORIZON:
            break
        said, true = world.stats.decode_state(s.state), batch.true_state(h + 1)
        ways = (
            s.obs,
            world.model.prior.renderer(s.state),
            encode_pixels(torch.from_numpy(np.stack([drawing(simulator, x) for x in said.numpy()]))),
            world.model.prior.renderer(world.stats.encode_state(true)),
        )
        known = batch.valid[:, h].numpy()
        for i, obs in enumerate(ways):
            seen, truth = encode_pixels(decode_pixels(obs.clamp(-1, 1))), batch.truth(h + 1)
            both = torch.stack([psnr(seen, truth), ssim(seen, truth)], dim=1).numpy()
            found[known, i, h] = both[known]
        corners = (said - true)[:, 2:].unflatten(1, (8, 2)).norm(dim=2).mean(1).numpy()
        block[known, h] = corners[known]
    return found, block


def drawing(simulator: PushT, state: np.ndarray) -> np.ndarray:
    """(1, H, W, 3) uint8: the simulator's picture of a state (18,)."""
    options = {"agent_pos": state[:2].clip(0, 512), "environment_state": state[2:]}
    return simulator.reset(seed=0, options=options)[0]["pixels"][None]


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:4]))
