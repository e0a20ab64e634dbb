"""How much of a picture does a robot's own state tell? Recorded states of held-out episodes, nothing shown.

    python recipes/cameras/state_draws.py runs/mine/train runs/mine/data.zarr

RUN is the folder of a training with codec=autoencoder: its latents and its world are what is measured. PSNR
of pictures, decoded, in dB: the mean picture, the picture of the nearest recorded state, the mean of the
fifteen nearest, and the state prior's renderer, trained for SECONDS on single frames of the other episodes.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scd_datasets.store.loader import WindowLoader
from scd_datasets.store.store import WindowStore
from scd_world.evaluation.splits import select_eval_episodes
from scd_world.metrics.image import psnr
from scd_world.optim.pretraining import PretrainStage
from scd_world.prior.config import PriorConfig, RendererPretrainConfig
from scd_world.prior.fit_renderer import FramesToDraw, fit_renderer
from scd_world.prior.renderer import StateRenderer
from scd_world.reporting.tables import table
from scd_world.robot_data.normalizer import encode_pixels
from scd_world.training.pretrain import frames_to_draw
from scd_world.world.world import World

EVERY = 5  # of held-out frames, those that are measured
KNOWN = 2  # of the others, those that are looked among for the nearest
NEAREST = 15
LOT = 32


def frames(store: WindowStore, episodes: np.ndarray, every: int) -> tuple[Tensor, Tensor]:
    """Reads pixels uint8 (F, V, H, W, 3) and raw states (F, S)."""
    of = np.concatenate([np.full(len(range(0, store.lengths[e], every)), e) for e in episodes])
    at = np.concatenate([np.arange(0, store.lengths[e], every) for e in episodes])
    windows = store.windows(of, np.minimum(at, store.lengths[of] - 2), 1)
    return torch.from_numpy(windows["pixels"][:, 0]), torch.from_numpy(windows["state"][:, 0])


def train(
    renderer: StateRenderer, store: WindowStore, episodes: np.ndarray, world: World, seconds: float
) -> int:
    """Trains a renderer for so long; gives how many updates that were."""
    config = RendererPretrainConfig(steps=100_000)
    loader = WindowLoader(store, episodes, config.batch_size, 1, seed=0)

    def batches(first: int) -> Iterator[FramesToDraw]:
        for i in itertools.count(first):
            yield frames_to_draw(loader.batch(i), world.stats, torch.device("cpu"))

    return sum(1 for _ in fit_renderer(renderer, batches, 0, config, False, PretrainStage(seconds)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--seconds", type=float, default=120, help="of the renderer's training")
    parser.add_argument("--parts", type=int, default=PriorConfig.renderer_parts)
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    world = World.load(args.run / "world")
    latents, store = (
        WindowStore.open(path, in_memory=False) for path in (args.run / "latents.zarr", args.store)
    )
    held = select_eval_episodes(world.provenance, store, None).episodes
    others = np.setdiff1d(np.arange(len(store.lengths)), held)
    pictures, _ = frames(store, held, EVERY)
    _, raw = frames(latents, held, EVERY)
    known, known_raw = frames(latents, others, KNOWN)
    obs, state, known_state = encode_pixels(known), *(world.stats.encode_state(x) for x in (raw, known_raw))
    scale = known_state.std(0).clamp_min(1e-6)

    def decoded(draw: Callable[[Tensor], Tensor]) -> float:
        made = [psnr(world.codec.decode(draw(s)), encode_pixels(p)) for s, p in zip(*lots, strict=True)]
        return torch.cat(made).mean().item()

    def nearest(count: int) -> Callable[[Tensor], Tensor]:
        def draw(lot: Tensor) -> Tensor:
            far = torch.cdist(lot / scale, known_state / scale)
            return torch.stack([obs[row].mean(0) for row in far.topk(count, largest=False).indices])

        return draw

    lots = state.split(LOT), pictures.split(LOT)
    mean = obs.mean(0, keepdim=True)
    rivals = {
        "mean picture": lambda lot: mean.expand(len(lot), -1, -1, -1),
        "nearest state's": nearest(1),
        f"mean of the {NEAREST} nearest": nearest(NEAREST),
    }
    lines = [[name, "", f"{decoded(draw):.1f}"] for name, draw in rivals.items()]
    torch.manual_seed(0)
    renderer = StateRenderer(state.shape[1], world.stats.background, args.parts)
    began = time.perf_counter()
    updates = train(renderer, latents, others, world, args.seconds)
    took = time.perf_counter() - began
    with torch.no_grad():
        lines.append(["renderer", f"{updates} in {took:.0f} s", f"{decoded(renderer):.1f}"])
    print(f"{len(state)} frames of {len(held)} held-out episodes; {state.shape[1]} numbers a state")
    print(table(["drawn of the state alone", "updates", "PSNR, dB"], lines))


if __name__ == "__main__":
    main()
