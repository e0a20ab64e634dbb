#!/usr/bin/env bash
# Every figure of speed that needs a card, in at most 8 minutes of one (docs/bench.md):
#
#     recipes/gpu/measure.sh runs/gpu
#     SIZE=toy DEVICE=cpu recipes/gpu/measure.sh runs/toy     # the rehearsal: the same calls, small
#     recipes/gpu/measure.sh runs/gpu "stepping training"     # some parts alone
#
# Each part leaves OUT/<part>/bench.md and bench.json, written anew after each measurement; a part that fails or
# takes too long does not stop the others. No store is read, and nothing is fetched.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ ! -d .venv/bin ] || PATH="$PWD/.venv/bin:$PATH"
export PYTHONPATH="$PWD:$PWD/envs:$PWD/policies:$PWD/datasets${PYTHONPATH:+:$PYTHONPATH}"

OUT=$1 PARTS=${2:-stepping stepping_bf16 latents training against_dit}
SIZE=${SIZE:-full} DEVICE=${DEVICE:-cuda} WORLD=${WORLD:-envs/scd_envs/worlds/pusht}
case $SIZE in
full) rows='[1,64,1024]' seconds=3 model=base dense=medium batch=16 contexts='[64]' steps='[50,4,1]' few='[1,8]' ;;
toy) rows='[1,2]' seconds=0.1 model=nano dense=nano batch=2 contexts='[2]' steps='[2,1]' few='[1]' ;;
*) echo "SIZE is full or toy; got $SIZE" >&2 && exit 2 ;;
esac

bench() { # part, the most seconds that it may take, settings
    local part=$1 most=$2 began=$SECONDS
    echo "== $part: scd-bench ${*:3}"
    timeout "$most" python -c "import sys; sys.argv[0] = 'scd-bench'; from scd_world.cli.commands import bench; bench()" \
        "${@:3}" device="$DEVICE" seconds="$seconds" out="$OUT/$part" 2> "$OUT/$part.log" ||
        echo "$part failed or took longer than $most s: $OUT/$part.log; what it had is in $OUT/$part"
    echo "== $part: $((SECONDS - began)) s"
}

# Steps through Gymnasium, images on the host and on the device, with and without the model; and the model alone.
stepping() { bench stepping 140 world="$WORLD" compare=environment batch_sizes="$rows" num_steps='[1]'; }

stepping_bf16() {
    bench stepping_bf16 90 world="$WORLD" compare=environment batch_sizes="$rows" num_steps='[1]' precision=bf16
}

# A model of latents with its decoder in the figure.
latents() {
    bench latents 60 model="$model" codec.kind=autoencoder height=96 width=128 model.patch=2 batch_sizes="$few" num_steps='[1,4]'
}

# Frames per second and share of the card's peak: 16 clips of 8 steps.
training() {
    bench training 70 model="$model" model.patch=8 height=96 width=128 training=true train_batch_size="$batch" \
        sequence_length=8 batch_sizes='[1]' num_steps='[1]'
}

against_dit() {
    bench against_dit 120 model="$dense" model.patch=12 baselines='[causal_dit]' contexts="$contexts" batch_sizes="$few" \
        num_steps="$steps"
}

mkdir -p "$OUT"
for part in $PARTS; do "$part"; done
echo "== $SECONDS s in all"
