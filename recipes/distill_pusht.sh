#!/usr/bin/env bash
# Quality against denoising steps on PushT (docs/distill.md): two worlds without a sketch, so that all that is
# drawn comes through the decoder; each distilled in two ways, and then taught on rollouts of its own.
#   told  knows agent, block and action: what comes next is nearly certain
#   film  sees every fourth frame and is told nothing: the hand may go anywhere
# Needs the small store of recipes/ablate.sh. The same command goes on where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"

STORE=${STORE:-data/pusht48.zarr}
OUT=${OUT:-runs/distill}
FILM=${FILM:-$OUT/film.zarr}

[ -e "$FILM" ] || python - "$STORE" "$FILM" <<'PY'
import sys
from dataclasses import replace

import numpy as np

from scd_datasets.columns import EpisodeArrays
from scd_datasets.store import WindowStore, write_store

store = WindowStore.open(sys.argv[1], in_memory=False)
told = {"agent_pos": (), "environment_state": (), "action": ("nothing",), "reward": False, "success": False}
bounds = {"action_low": (-1.0,), "action_high": (1.0,), "fps": 2, "horizon": -(-store.schema.horizon // 4)}


def film(i: int) -> EpisodeArrays:
    pixels = store.windows(np.array([i]), np.array([0]), store.lengths[i] - 1)["pixels"][0, ::4]
    nothing = np.zeros((len(pixels), 1), np.float32)
    reward, index = nothing[:, 0], int(store.episode_index[i])
    return EpisodeArrays(pixels, nothing[:, :0], nothing, reward, reward > 0, index)


write_store(sys.argv[2], replace(store.schema, **told, **bounds), map(film, range(len(store.lengths))))
PY

quiet=(batch_size=3 clip_steps=6 eval_every=100000 eval_windows=1 keep_checkpoints=1 checkpoint_every=500)
world=(data=zarr model=micro model.patch=12 model.window=4 model.draws=1 model.sketch_parts=0
    model.conv_channels=16 model.num_steps=4 optimiser.lr=1e-3 optimiser.decay=0.5 optimiser.ema=0.995)
body=(body.steps=1000 body.batch_size=128 body.unroll=6 body.lr=1.5e-3 body.outcome_steps=300)

scd-train "${world[@]}" "${body[@]}" "${quiet[@]}" data.root="$STORE" steps=3000 out="$OUT/told"
scd-train "${world[@]}" "${quiet[@]}" model.body_layers=0 data.root="$FILM" steps=3000 out="$OUT/film"

distil() { # world, its store, method, what is distilled; further settings. Measured is all together, at the end.
    scd-distill world="$OUT/$4/world" out="$OUT/$1_$3" method="$3" data.root="$2" draws=1 "${quiet[@]}" \
        report_windows=0 "${@:5}"
}
for one in "told $STORE 64 1e-4" "film $FILM 16 5e-4"; do
    read -r name store horizon rate <<<"$one"
    distil "$name" "$store" meanflow "$name" steps=600 optimiser.lr="$rate"
    distil "$name" "$store" consistency "$name" steps=600 optimiser.lr="$rate"
    distil "$name" "$store" rollout "${name}_consistency" steps=300
    # Nothing is left to learn here: the table.
    distil "$name" "$store" consistency "$name" steps=600 optimiser.lr="$rate" report_windows=32 \
        report_horizon="$horizon" \
        beside="{meanflow: $OUT/${name}_meanflow/world, rollout: $OUT/${name}_rollout/world}"
done
