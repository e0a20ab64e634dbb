"""What limits a PushT world's images: the same windows, rendered in other ways.

    python recipes/pusht/image_sources.py envs/scd_envs/worlds/pusht data/pusht.zarr [windows]

The imagined states are rendered by the world, by its renderer alone, and by the simulator, which renders
perfectly; and the renderer shows the recorded states, as if they were predicted perfectly. What is lost
between two rows is what one part of the world costs.
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
    "its renderer alone, of the imagined state",
    "the simulator, of the imagined state",
    "its renderer alone, of the recorded state",
)


def main(source: str, data: str, windows: int = 64) -> None:
    world, store = World.load(source), WindowStore.open(data)
    held_out = select_eval_episodes(world.provenance, store, None).episodes
    held_out = held_out[store.lengths[held_out] > CONTEXT]
    spread = np.linspace(0, len(held_out) - 1, min(windows, len(held_out))).round().astype(int)
    chosen = choose_windows(store.lengths, held_out[spread], CONTEXT, HORIZON, 1)
    simulator = PushT(size=world.schema.width)
    parts = [
        measure(world, simulator, load_batch(store, chosen[i : i + ROWS], CONTEXT, "cpu"))
        for i in range(0, len(chosen), ROWS)
    ]
    quality, block = (np.concatenate(part) for part in zip(*parts, strict=True))
    print(f"{source}: {len(chosen)} windows\n")
    at = [f"{h}" for h in AT]
    print(f"| rendered by | {' | '.join(at)} | mean |\n|---|{'---:|' * (len(AT) + 1)}")
    for i, way in enumerate(WAYS):
        of_step = np.nanmean(quality[:, i], axis=0)  # (steps, 2)
        cells = [f"{of_step[h - 1, 0]:.1f}, {of_step[h - 1, 1]:.4f}" for h in AT]
        mean = of_step.mean(0)
        print(f"| {way} | {' | '.join(cells)} | {mean[0]:.2f}, {mean[1]:.4f} |")
    cells = [f"{np.nanmedian(block[:, h - 1]):.2f}, {np.nanmean(block[:, h - 1]):.2f}" for h in AT]
    print(f"| block error, px of 512: median, mean | {' | '.join(cells)} | |")


@torch.no_grad()
def measure(world: World, simulator: PushT, batch: WindowBatch) -> tuple[np.ndarray, np.ndarray]:
    """Measures PSNR and SSIM (B, ways, HORIZON, 2) of frames in 8 bits, and the block's error (B, HORIZON).

    NaN where nothing was recorded.
    """
    B = len(batch.windows)
    quality, block = np.full((B, len(WAYS), HORIZON, 2), np.nan), np.full((B, HORIZON), np.nan)
    noise = RowNoise(batch.windows, world.frame_shape, 0)
    for h, s in enumerate(imagine_steps(world, start_windows(world, batch), batch.future, noise, None)):
        if h == HORIZON:
            break
        state, true = world.stats.decode_state(s.state), batch.true_state(h + 1)
        ways = (
            s.obs,
            world.model.prior.render(s.state),
            encode_pixels(torch.from_numpy(np.stack([simulated(simulator, x) for x in state.numpy()]))),
            world.model.prior.render(world.stats.encode_state(true)),
        )
        known = batch.valid[:, h].numpy()
        for i, obs in enumerate(ways):
            rounded, truth = encode_pixels(decode_pixels(obs.clamp(-1, 1))), batch.truth(h + 1)
            both = torch.stack([psnr(rounded, truth), ssim(rounded, truth)], dim=1).numpy()
            quality[known, i, h] = both[known]
        corners = (state - true)[:, 2:].unflatten(1, (8, 2)).norm(dim=2).mean(1).numpy()
        block[known, h] = corners[known]
    return quality, block


def simulated(simulator: PushT, state: np.ndarray) -> np.ndarray:
    """Renders a state (18,) by the simulator: uint8 (1, H, W, 3)."""
    options = {"agent_pos": state[:2].clip(0, 512), "environment_state": state[2:]}
    return simulator.reset(seed=0, options=options)[0]["pixels"][None]


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:4]))
