"""Calibrates a world's uncertainty anew, on recordings that it was not trained on.

    python recipes/pusht/calibrate.py runs/mine/world data/new runs/mine_calibrated

`info["uncertainty"]` was calibrated on a few episodes that the training held out (`prior.calibration_share`).
More of them, recorded later, calibrate it better; they need no images. Nothing else of the world changes.
"""

from __future__ import annotations

import argparse

from scd_datasets.preparation.low_dim import dataset_low_dim
from scd_world.prior.state_prior import PretrainedStatePrior
from scd_world.prior.uncertainty import FLOOR, calibrate_uncertainty
from scd_world.training.pretrain import to_trajectories
from scd_world.world.world import World

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("world", help="folder, or name on the Hub")
    parser.add_argument("data", help="LeRobotDataset of the same robot, with images or without")
    parser.add_argument("out", help="folder of the calibrated world")
    parser.add_argument("--windows", type=int, default=4096, help="rollouts of 64 steps")
    args = parser.parse_args()
    world = World.load(args.world)
    prior = world.model.prior
    if not isinstance(prior, PretrainedStatePrior):
        raise SystemExit(f"{args.world} has no state prior, so no uncertainty to calibrate")
    low_dim = dataset_low_dim(args.data, world.schema)
    trajectories = to_trajectories(low_dim, world.stats)
    calibrate_uncertainty(prior.uncertainty, prior.dynamics, trajectories, seed=0, windows=args.windows)
    for spread, error in zip(*prior.uncertainty.calibration_curve.exp(), strict=True):
        print(f"spread {spread - FLOOR:.4f}: error {error / 2:.3%} of the range")
    note = f"the uncertainty was measured on {len(low_dim.lengths)} episodes of {args.data}"
    world.provenance["edited"] = note
    print(f"{note}; the world is in {world.save(args.out)}")
