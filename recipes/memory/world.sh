#!/usr/bin/env bash
# Does an object that leaves the view and comes back stay the same? A camera that pans along a table, two small
# worlds of it, without and with model.anchor_attention, and what both show on return (docs/cameras.md):
#
#     recipes/memory/world.sh data/panning runs/memory          # a quarter of an hour of one CPU thread each
#
# UPDATES (4000) of each world. A kill is survived: the same command goes on.
set -euo pipefail

DATA=$1 OUT=$2
UPDATES=${UPDATES:-4000}

scd-record env=panning_camera episodes="${EPISODES:-200}" max_steps=100 out="$DATA" \
    'policy_mixture=[{policy:random_walk,policy_kwargs:{speed:[0.05,0.15,0.3]}}]'
scd-data data.root="$DATA" out="$OUT/data.zarr"
for attention in false true; do
    scd-train data=zarr data.root="$OUT/data.zarr" out="$OUT/$attention" steps="$UPDATES" \
        codec=autoencoder codec.steps=2500 model=nano model.head=conv model.patch=2 model.warp=true \
        model.anchor_frame=true model.anchor_attention="$attention" model.skip_connection=true model.t_shift=0.15 \
        model.change_weight=0 model.foreground_weight=0 prior.renderer_parts=0 prior.dynamics.steps=300 \
        prior.outcome.steps=100 optimizer.lr=1e-3 batch_size=16 sequence_length=6 eval_every=100000
done
python "$(dirname "$0")/leave_and_return.py" "$OUT"/{false,true}/world --out "$OUT"
