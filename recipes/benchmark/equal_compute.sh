#!/usr/bin/env bash
# SCD against its baselines after the same processor time of training (docs/bench.md): a costlier update means
# fewer of them. Needs the small store of recipes/ablations/ablate.sh. The same command resumes.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH="$PWD/.venv/bin:$PATH"

STORE=${STORE:-data/pusht48.zarr}
OUT=${OUT:-runs/equal}
SEEDS=${SEEDS:-0 1}
# Updates that take as long as 3,000 of SCD's, by scd-bench training=true on the machine at hand.
declare -A STEPS=([scd]=${SCD:-3000} [causal_dit]=${DIT:-1220} [regression]=${REGRESSION:-3000}
    [far]=${FAR:-1300} [diffusion_forcing]=${FORCING:-1300})

# One state prior for all models of a seed; no renderer: the models have to render by themselves.
common=(data=zarr data.root="$STORE" model=micro model.patch=12 model.window=4 model.noise_samples=1
    prior.renderer_parts=0 model.conv_channels=16 model.fusion=concat batch_size=3 sequence_length=6
    optimizer.lr=1e-3 optimizer.decay_share=0.5 optimizer.ema_decay=0.995
    prior.dynamics.steps=1000 prior.dynamics.batch_size=128 prior.dynamics.rollout_length=6
    prior.dynamics.lr=1.5e-3 prior.outcome.lr=1.5e-3 prior.outcome.steps=300
    eval_every=100000 eval_windows=1 keep_checkpoints=1 checkpoint_every=100000)

for seed in $SEEDS; do
    for kind in scd causal_dit regression far diffusion_forcing; do
        scd-train "${common[@]}" model.architecture="$kind" seed="$seed" steps="${STEPS[$kind]}" out="$OUT/${kind}_$seed"
        scd-evaluate world="$OUT/${kind}_$seed/world" data.root="$STORE" windows=48 sweep_starts=0 \
            outcome_episodes=0 num_videos=1 num_steps=4 out="$OUT/${kind}_$seed/evaluation"
    done
done
python recipes/benchmark/equal_compute_table.py "$OUT"
