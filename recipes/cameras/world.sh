#!/usr/bin/env bash
# A world from cameras and proprioception alone, of any LeRobotDataset (docs/cameras.md):
#
#     recipes/cameras/world.sh data/mine runs/mine            # prepare, train, distill, evaluate
#     recipes/cameras/world.sh data/mine runs/mine train      # one part alone
#
# Every part goes on where a kill left it. READ is how the recording is read (scd-data's settings), BUDGET the
# most seconds of training in all (it ends sooner once the recording has been gone over often enough), PIECE the
# seconds that one call may take: with PIECE=500 the same call is repeated until it says "finished". TRAIN are
# further settings of scd-train; what it is not given, it chooses by the data and the device. PRIOR are those of
# the state prior. On a machine without network, `prepare` and the wheels are made elsewhere, and OUT is carried.
set -euo pipefail

DATA=$1 OUT=$2 PARTS=${3:-prepare train distill evaluate}
read -ra READ <<< "${READ:-data.image_size=96}"
read -ra TRAIN <<< "${TRAIN:-}"
read -ra PRIOR <<< "${PRIOR:-prior.dynamics.time_share=0.06 prior.outcome.time_share=0.01}"
BUDGET=${BUDGET:-14400}
LIMIT=(${PIECE:+time_limit="$PIECE"})

prepare() { scd-data data.root="$DATA" "${READ[@]}" out="$OUT/data.zarr"; }

train() {
    scd-train data=zarr data.root="$OUT/data.zarr" out="$OUT/train" time_budget="$BUDGET" \
        "${PRIOR[@]}" checkpoint_every=250 "${LIMIT[@]}" "${TRAIN[@]}"
}

distill() { # from the four denoising steps of the world to two, on rollouts of its own: it stays sharp
    scd-distill world="$OUT/train/world" data.root="$OUT/data.zarr" method=dmd num_steps=2 noise_samples=1 batch_size=4 \
        steps=1000000 time_budget=$((BUDGET / 7)) report_steps='[1,2,4,8]' out="$OUT/distilled" "${LIMIT[@]}"
}

evaluate() {
    for run in train distilled; do
        [ ! -d "$OUT/$run/world" ] || scd-evaluate world="$OUT/$run/world" data.root="$OUT/data.zarr" \
            windows=40 draws=5 sweep_starts=4 out="$OUT/evaluation_$run"
    done
}

mkdir -p "$OUT"
for part in $PARTS; do "$part"; done
