"""How recorded pictures move: the optical flow between neighboring frames, measured once, to be learnt from.

A camera on a robot's wrist moves all that it sees, a hand what it holds. What the next picture is, is mostly
that motion; and a network finds it slowly by itself, since the error of a moved picture says little of a
better motion until the picture nearly fits. Measured by Dense Inverse Search (arXiv 1603.03590, OpenCV's).

L frames of an episode, F of a store, V cameras, H W pixels, y x grid of the flow.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from scd_datasets.store.store import WindowStore
from scd_world.training.pretrain import BAR_SECONDS
from scd_world.utils.atomic_folder import replace_file

CERTAIN = 4.0  # gray levels: a change below it is noise, and no flow explains it
SMALLEST = 64  # pixels of a side that the search needs
VERSION = 1  # of what is measured


def optical_flow(store: WindowStore, grid: tuple[int, int], out: Path) -> np.ndarray:
    """Gives the flow of each frame of the store from the one before it, float16 (F, V, y, x, 3).

    That is from how far right and below a cell comes, as shares of the frame's width and height, and how much
    of the change that explains, in [0, 1]. Kept in the file `out`; measured anew where that is of another
    store or grid."""
    source = hashlib.sha256(f"{VERSION} {store.fingerprint} {grid}".encode()).hexdigest()
    if out.is_file():
        with np.load(out) as kept:
            if str(kept["source"]) == source:
                return kept["flow"]
    lengths = tqdm(store.lengths, "optical flow", unit="episode", mininterval=BAR_SECONDS)
    flow = np.concatenate([episode_flow(frames(store, i, int(n)), grid) for i, n in enumerate(lengths)])
    replace_file(out, lambda made: save(made, flow=flow, source=np.array(source)))
    return flow


def save(path: Path, **arrays: np.ndarray) -> None:
    with path.open("wb") as file:  # under its own name: numpy would add an ending
        np.savez(file, **arrays)  # type: ignore[arg-type]


def frames(store: WindowStore, episode: int, length: int) -> np.ndarray:
    """Reads an episode's pixels, uint8 (L, V, H, W, 3)."""
    return store.frames(np.full(length, episode), np.arange(length))


def episode_flow(pixels: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Measures an episode's pixels uint8 (L, V, H, W, 3): float16 (L, V, y, x, 3), of its first frame 0."""
    flow = np.zeros((*pixels.shape[:2], *grid, 3), np.float16)
    for i in range(1, len(pixels)):
        for camera in range(pixels.shape[1]):
            flow[i, camera] = pair_flow(pixels[i - 1, camera], pixels[i, camera], grid)
    return flow


def pair_flow(before: np.ndarray, after: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Measures two images uint8 (H, W, 3): (y, x, 3), where each cell of `after` comes from in `before`."""
    import cv2

    H, W = before.shape[:2]
    larger = max(1, -(-SMALLEST // min(H, W)))
    size = larger * W, larger * H
    old, new = (cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), size) for image in (before, after))
    search: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = search.calc(new, old, None)  # in pixels: right, down
    places = np.stack(np.meshgrid(*map(np.arange, size)), axis=-1).astype(np.float32)
    found = cv2.remap(old, places + flow, np.empty(0), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    copied, left = (in_cells(np.abs(image.astype(np.float32) - new), grid) for image in (old, found))
    explained = np.clip(1 - left / np.maximum(copied, CERTAIN), 0, 1)
    shares = in_cells(flow / np.array(size, np.float32), grid)
    return np.concatenate([shares, explained[..., None]], axis=-1)


def in_cells(image: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Averages an image (H, W, …) over the cells of a grid: (y, x, …)."""
    (y, x), (H, W) = grid, image.shape[:2]
    return image.reshape(y, H // y, x, W // x, *image.shape[2:]).mean((1, 3))
