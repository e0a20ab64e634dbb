"""Packs a world of recipes/g1/world.sh as it is shipped: in fewer bits, with pieces of held-out recordings.

    python recipes/g1/ship.py $R/distilled/world $R/evaluation_distilled data/g1 $R/data.zarr $R/shipped

R is the recipe's folder, such as runs/g1. The arguments: the world, its evaluation, the recording (for its
license), its window store, where to.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from scd_datasets.store.store import WindowStore
from scd_world.training.export import export_world, pick_starts
from scd_world.world.world import World

PIECES, FRAMES = 3, 52  # the demonstration shows 4 frames and imagines 48
SOURCE = (
    "a Unitree G1 that picks up a bottle (MIT License, © 2026 Yifan Tian), every third of 30 recorded frames "
    "per second"
)

world, evaluation, recording, data, out = sys.argv[1:]
store = WindowStore.open(data)
held_out = World.load(world).provenance["held_out_episodes"]
episodes = np.flatnonzero(np.isin(store.episode_index, held_out))
starts = pick_starts(store, episodes, PIECES, FRAMES)
license_text = [Path(recording) / "LICENSE"]
with TemporaryDirectory() as folder:  # the evaluation, the picture of its worst window in 256 colors
    small = Path(shutil.copytree(evaluation, Path(folder) / "evaluation"))
    worst = small / "worst.png"
    Image.open(worst).convert("RGB").quantize(256).save(worst, optimize=True)
    shipped = export_world(world, small, out, "int8", SOURCE, starts, beside=license_text)
print(shipped, f"{sum(file.stat().st_size for file in shipped.rglob('*') if file.is_file()) / 2**20:.1f} MB")
