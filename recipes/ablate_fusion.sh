#!/usr/bin/env bash
# How the decoder should see its context (docs/ablations.md): every way, the same data, updates and seeds. Needs
# the recordings of recipes/pusht.sh; about four minutes a training on a CPU core. The same command goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"

DATA=${DATA:-data/pusht.zarr}
OUT=${OUT:-runs/fusion}
SEEDS=${SEEDS:-0,1,2}

# No sketch and no body network: what is drawn has to come through the context. Seeds outermost: a table can be
# made of the first ones while the others train.
common=(data=zarr data.root="$DATA" model=micro model.patch=16 model.window=4 model.draws=1 model.sketch_parts=0
    model.body_layers=0 batch_size=6 clip_steps=6 steps=700 optimiser.lr=1e-3 optimiser.decay=0.5
    optimiser.ema=0.99 eval_every=100000 eval_windows=48 model.num_steps=1)
scd-train -m "${common[@]}" seed="$SEEDS" model.fusion=concat,one_way,channel,none model.add_context=true \
    'out='"$OUT"'/${model.fusion}_added_${seed}'
scd-train -m "${common[@]}" seed="$SEEDS" model.fusion=concat,one_way,channel model.add_context=false \
    'out='"$OUT"'/${model.fusion}_${seed}'
python recipes/ablation_table.py "$OUT"
