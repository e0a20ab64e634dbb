#!/usr/bin/env bash
# What each part of the model contributes on PushT (docs/ablations.md): every variant differs from the base in one
# thing; the same data, updates, seeds and held-out windows. Needs the recordings of recipes/pusht/train.sh; a
# training takes about a minute of a CPU core. The same command resumes, and finished trainings are not repeated.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH="$PWD/.venv/bin:$PATH"

DATA=${DATA:-data/pusht}
STORE=${STORE:-data/pusht48.zarr}
OUT=${OUT:-runs/ablations}
SEEDS=${SEEDS:-0 1 2}

[ -e "$STORE" ] || scd-data data.root="$DATA" data.image_size=48 out="$STORE"

# No renderer and no residual network: what is generated has to come through the context.
common=(data=zarr data.root="$STORE" model=micro model.patch=12 model.window=4 model.noise_samples=1
    prior.renderer_parts=0 prior.layers=0 model.conv_channels=16 model.num_steps=1 batch_size=3 sequence_length=6 steps=1000
    optimizer.lr=1e-3 optimizer.decay_share=0.5 optimizer.ema_decay=0.99 eval_every=100000 eval_windows=1
    keep_checkpoints=1 checkpoint_every=100000)

# Seeds outermost: a table of the first ones can be made while the others train.
for seed in $SEEDS; do
    vary() { # a folder's name, and what differs; a list of values, with commas, is a training for each
        scd-train -m "${common[@]}" seed="$seed" "${@:2}" "out=$OUT/$1_$seed"
    }
    base() { vary "$@" model.fusion=concat; }
    base base
    vary 'fusion-${model.fusion}-added' model.fusion=one_way,channel,none
    vary 'fusion-${model.fusion}' model.fusion=concat,one_way,channel model.add_context=false
    for depth in 5+1 3+3 2+4 1+5 8+1 0+6; do
        base "depth-$depth" model.encoder_layers="${depth%+*}" model.decoder_layers="${depth#*+}"
    done
    base 'noise-${model.ctx_noise}' model.ctx_noise=0,0.1
    base 'noise_samples-${model.noise_samples}' model.noise_samples=2,4
    base 'predict-${model.predict}' model.head=patch model.copy_last=false model.predict=x,v
    base predict-x-ramp model.head=patch model.copy_last=false model.t_ramp=0.9
    base 'action-${model.action_in}' model.action_in=encoder,decoder
done

python recipes/ablations/measure.py "$OUT" "$STORE"
python recipes/ablations/table.py "$OUT" "$OUT/ablations.png"
