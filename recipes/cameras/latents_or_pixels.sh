#!/usr/bin/env bash
# A world of pixels beside one of an autoencoder's latents, in equal minutes of a CPU: docs/cameras.md.
#
#     recipes/cameras/latents_or_pixels.sh data/cr5          # any LeRobotDataset
#
# SECONDS_EACH (1500) is how long each world learns, the autoencoder's time included; OUT where all goes.
set -euo pipefail

DATA=$1
OUT=${OUT:-runs/latents_or_pixels}
SECONDS_EACH=${SECONDS_EACH:-1500}

mkdir -p "$OUT"
scd-data data.root="$DATA" data.image_size=96 out="$OUT/data.zarr"
for codec in identity autoencoder; do
    patch=(model.patch=16 model.change_weight=1 model.foreground_weight=0)
    [ "$codec" = identity ] || patch=()
    scd-train data=zarr data.root="$OUT/data.zarr" codec="$codec" "${patch[@]}" prior=none out="$OUT/$codec" \
        sequence_length=8 batch_size=8 optimizer.lr=5e-4 steps=100000 time_budget="$SECONDS_EACH"
    scd-evaluate world="$OUT/$codec/world" data.root="$OUT/data.zarr" windows=40 sweep_starts=0 out="$OUT/evaluation_$codec"
done
