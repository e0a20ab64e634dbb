"""Measures anew how far a world may be trusted, on recordings that it has not learnt from.

    python recipes/calibrate.py runs/mine/world data/new runs/mine_calibrated

What `info["uncertainty"]` says was measured on a few episodes that the training set apart (`prior.calibration_share`).
More of them, recorded later, say it better; they need no pictures. Nothing else of the world changes.
"""

from __future__ import annotations

import argparse

from scd_datasets.preparation.low_dim import dataset_low_dim
from scd_world.prior.calibrate import calibrate_uncertainty
from scd_world.prior.uncertainty import FLOOR
from scd_world.training.pretrain import to_trajectories
from scd_world.world.world import World

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("world", help="folder, or name on the Hub")
    parser.add_argument("data", help="LeRobotDataset of the same robot, with pictures or without")
    parser.add_argument("out", help="folder of the calibrated world")
    parser.add_argument("--windows", type=int, default=4096, help="unrolls of 64 steps")
    args = parser.parse_args()
    world = World.load(args.world)
    numbers = dataset_low_dim(args.data, world.schema)
    doubt, recorded = world.model.prior.uncertainty, to_trajectories(numbers, world.stats)
    calibrate_uncertainty(doubt, world.model.prior.dynamics, recorded, seed=0, windows=args.windows)
    for spread, error in zip(*doubt.calibration_curve.exp(), strict=True):
        print(f"spread {spread - FLOOR:.4f}: error {error / 2:.3%} of the range")
    measured = f"the uncertainty was measured on {len(numbers.lengths)} episodes of {args.data}"
    world.provenance["refined"] = measured
    print(f"{measured}; the world is in {world.save(args.out)}")
