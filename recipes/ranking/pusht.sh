#!/usr/bin/env bash
# The ranking experiment on PushT: trains the learned policies, plays all 33 in the world and in the simulator,
# and reports (docs/rank.md). Needs the recordings of recipes/pusht/train.sh. The same command resumes; a second
# one at the same time, on another core, takes policies that the first one is not playing.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH="$PWD/.venv/bin:$PATH"

WORLD=${WORLD:-envs/scd_envs/worlds/pusht}
OUT=${OUT:-runs/rank}

python recipes/ranking/pusht_policies.py runs/rank_policies "$WORLD"
scd-rank world="$WORLD" policies=recipes/ranking/pusht.yaml episodes=40 batch_size=40 num_steps=1 \
    threads=1 out="$OUT" "$@"
