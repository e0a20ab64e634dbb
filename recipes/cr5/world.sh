#!/usr/bin/env bash
# A world of a Dobot CR5 that puts a banana on a plate: its camera rides on the wrist (docs/cameras.md). The
# recording's license names its code alone: figures, but no picture and no weights of it are published here.
#
#     recipes/cr5/world.sh data/cr5 runs/cr5         # the parts and settings of recipes/cameras/world.sh
set -euo pipefail

READ=${READ:-data.image_size=96} exec "$(dirname "$0")/../cameras/world.sh" "$@"
