#!/usr/bin/env bash
# A world of Unitree's G1 that picks up a bottle: a camera on the robot, which moves, 26 joints and their targets, at 10 of the 30
# recorded frames per second (docs/cameras.md).
#
#     recipes/g1/world.sh data/g1 runs/g1            # the parts and settings of recipes/cameras/world.sh
set -euo pipefail

READ=${READ:-data.image_size=96 data.stride=3} exec "$(dirname "$0")/../cameras/world.sh" "$@"
