#!/usr/bin/env bash
# A world of pixels beside worlds of an autoencoder's latents, in equal minutes of a CPU: docs/cameras.md.
#
#     recipes/cameras/latents_or_pixels.sh data/cr5          # any LeRobotDataset with one camera
#
# SECONDS_EACH (1500) is how long each world learns, CODEC_SECONDS (700) the autoencoder; OUT where all goes.
set -euo pipefail

DATA=$1
OUT=${OUT:-runs/latents_or_pixels}
SECONDS_EACH=${SECONDS_EACH:-1500}
CODEC_SECONDS=${CODEC_SECONDS:-700}
HERE=$(dirname "$0")

mkdir -p "$OUT"
scd-data data.root="$DATA" data.image_size=96 out="$OUT/pixels.zarr"
[ -d "$OUT/codec/latents.zarr" ] || python "$HERE/autoencoder.py" "$OUT/pixels.zarr" "$OUT/codec" "$CODEC_SECONDS"

learn() { # name, store, further settings
    scd-train data=zarr data.root="$2" out="$OUT/$1" prior=none model=small model.window=8 sequence_length=8 batch_size=8 \
        model.foreground_weight=0 optimizer.lr=5e-4 steps=100000 time_budget="$SECONDS_EACH" "${@:3}"
}
LATENTS=(model.patch=4 model.change_weight=0 model.noise_samples=4)
learn pixels "$OUT/pixels.zarr" model.patch=16 model.change_weight=1
learn latents "$OUT/codec/latents.zarr" "${LATENTS[@]}"
learn latents_2 "$OUT/codec/latents.zarr" "${LATENTS[@]}" init="$OUT/latents/world"
learn velocity "$OUT/codec/latents.zarr" "${LATENTS[@]}" model.num_steps=8 model.predict=v model.head=patch \
    model.copy_last=false model.t_mean=0 model.frame_noise=0.1

python "$HERE/evaluate.py" "$OUT/pixels/world" "$OUT/pixels.zarr"
for world in latents latents_2 velocity; do
    python "$HERE/evaluate.py" "$OUT/$world/world" "$OUT/pixels.zarr" "$OUT/codec"
done
