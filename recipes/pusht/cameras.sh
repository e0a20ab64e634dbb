#!/usr/bin/env bash
# A PushT world from pictures and the agent's place alone: nobody tells where the block is (docs/cameras.md).
#
#     recipes/pusht/cameras.sh data/pusht runs/pusht      # record, then the parts of recipes/cameras/world.sh
#
# EPISODES are recorded unless data/pusht is there already; BUDGET, PIECE and TRAIN are those of
# recipes/cameras/world.sh. scd-evaluate measures the block's area and outline in what was imagined.
set -euo pipefail
here=$(dirname "$0")
. "$here/record.sh"

[ -d "$1" ] || record out="$1" episodes="${EPISODES:-420}"
READ=${READ:-data.drop_features=[observation.environment_state]} exec "$here/../cameras/world.sh" "$@"
