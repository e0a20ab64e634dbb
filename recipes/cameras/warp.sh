#!/usr/bin/env bash
# Worlds of latents that move the last frame beside one that does not, in equal updates of a CPU: docs/cameras.md.
#
#     recipes/cameras/warp.sh data/cr5          # any LeRobotDataset with one camera
#
# UPDATES (500) is how long each world learns, CODEC_SECONDS (480) the autoencoder; OUT where all goes.
set -euo pipefail

DATA=$1
OUT=${OUT:-runs/warp}
HERE=$(dirname "$0")

mkdir -p "$OUT"
scd-data data.root="$DATA" data.image_size=96 out="$OUT/pixels.zarr"
[ -d "$OUT/codec/latents.zarr" ] || python "$HERE/autoencoder.py" "$OUT/pixels.zarr" "$OUT/codec" "${CODEC_SECONDS:-480}"

learn() { # name, settings
    scd-train data=zarr data.root="$OUT/codec/latents.zarr" out="$OUT/$1" model=small model.patch=4 model.window=8 sequence_length=8 \
        batch_size=8 model.change_weight=0 model.foreground_weight=0 model.noise_samples=4 optimizer.lr=5e-4 steps="${UPDATES:-500}" "${@:2}"
    python "$HERE/evaluate.py" "$OUT/$1/world" "$OUT/pixels.zarr" "$OUT/codec"    # in 4 steps
    python "$HERE/evaluate.py" "$OUT/$1/world" "$OUT/pixels.zarr" "$OUT/codec" 1  # in one
}
learn still prior=none
learn moved prior=none model.warp=true
learn moved_state prior=state prior.renderer_parts=0 model.warp=true model.frame_blend=0
