#!/usr/bin/env bash
# Quality against denoising steps on PushT (docs/distill.md): twice a world without a sketch, so that all that
# is drawn comes through the decoder, each distilled in two ways, and then taught on rollouts of its own.
#   told  knows agent, block and action: what comes next is nearly certain
#   film  sees every fourth frame and is told nothing else: the hand may go anywhere
# Needs the small store of recipes/ablate.sh. The same command goes on where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"

STORE=${STORE:-data/pusht48.zarr}
OUT=${OUT:-runs/distill}
FILM=${FILM:-$OUT/film.zarr}

[ -e "$FILM" ] || python recipes/bidirectional_teacher.py film "$STORE" "$FILM"

quiet=(batch_size=3 clip_steps=6 eval_every=100000 eval_windows=1 keep_checkpoints=1 checkpoint_every=500)
world=(data=zarr model=micro model.patch=12 model.window=4 model.draws=1 model.sketch_parts=0
    model.conv_channels=16 model.num_steps=4 optimiser.lr=1e-3 optimiser.decay=0.5 optimiser.ema=0.995)
body=(body.steps=1000 body.batch_size=128 body.unroll=6 body.lr=1.5e-3 body.outcome_steps=300)

scd-train "${world[@]}" "${body[@]}" "${quiet[@]}" data.root="$STORE" steps=4000 out="$OUT/told"
scd-train "${world[@]}" model.body_layers=0 "${quiet[@]}" data.root="$FILM" steps=4000 out="$OUT/film"

distil() { # world, its store, method, teacher; what else is set. Nothing is measured yet.
    scd-distill world="$OUT/$4/world" data.root="$2" method="$3" out="$OUT/$1_$3" \
        "${quiet[@]}" draws=1 report_windows=0 "${@:5}"
}
compare() { # world, its store, imagined steps, settings of the rollout stage; the table of all four
    local beside="consistency:$OUT/$1_consistency/world,meanflow:$OUT/$1_meanflow/world"
    scd-distill world="$OUT/$1/world" data.root="$2" method=rollout out="$OUT/$1_rollout" \
        "${quiet[@]}" draws=1 report_horizon="$3" beside="{$beside}" "${@:4}"
}
