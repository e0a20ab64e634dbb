#!/usr/bin/env bash
# Where a card's time goes: kernels, launches and share of its peak, of a step and of an update (docs/bench.md).
#
#     recipes/gpu/profile.sh runs/profile
#     SIZE=toy DEVICE=cpu recipes/gpu/profile.sh runs/toy     # the rehearsal: the same calls, small
#
# Leaves OUT/<what>.md and, for a viewer (Perfetto, chrome://tracing), OUT/<what>.trace.json.gz.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ ! -d .venv/bin ] || PATH="$PWD/.venv/bin:$PATH"
export PYTHONPATH="$PWD:$PWD/envs:$PWD/policies:$PWD/datasets${PYTHONPATH:+:$PYTHONPATH}"

OUT=$1 SIZE=${SIZE:-full} DEVICE=${DEVICE:-cuda} WORLD=${WORLD:-envs/scd_envs/worlds/pusht}
case $SIZE in
full) rows='1 1024' model=base batch=16 turns=5 ;;
toy) rows='1 2' model=nano batch=2 turns=2 ;;
*) echo "SIZE is full or toy; got $SIZE" >&2 && exit 2 ;;
esac

mkdir -p "$OUT"
for count in $rows; do
    for observations in numpy torch; do
        python recipes/gpu/kernels.py step --world "$WORLD" --rows "$count" --observations "$observations" \
            --device "$DEVICE" --turns "$turns" --out "$OUT/step_${count}_$observations"
    done
done
python recipes/gpu/kernels.py update --model "$model" --batch "$batch" --device "$DEVICE" --turns "$turns" --out "$OUT/update"
