#!/usr/bin/env bash
# Trains a PushT world further, the shipped one or WORLD, with further recordings: its state prior above all, which
# predicts where a contact leads; then reward and success, and its images. The same command resumes.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH="$PWD/.venv/bin:$PATH"

WORLD=${WORLD:-envs/scd_envs/worlds/pusht}
DATA=${DATA:-data/pusht}
EPISODES=${EPISODES:-1030}  # the first ones of recipes/pusht/train.sh; with this share held out of them,
HOLDOUT=${HOLDOUT:-0.095}   # just those that are held out there (98)
BLIND=${BLIND:-8000}        # new ones, without images, in two halves:
FURTHER=${FURTHER:-${DATA}_further}  # here and in …_2
SEED=${SEED:-3000000}       # another one for every round, or nothing is new; the other half starts a million later
MORE=${MORE:-}              # other recordings for the state prior, with commas: those of the trainings before
BUDGET=${BUDGET:-4200}      # seconds of training,
SHARE=${SHARE:-0.6}         # of which the state prior's dynamics take this share
OUT=${OUT:-runs/pusht_on}
PACKAGE=${PACKAGE:-envs/scd_envs/worlds/pusht}

. recipes/pusht/record.sh
record out="$DATA" episodes="$EPISODES"
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
record_blind out="$FURTHER" episodes="$((BLIND / 2))" seed="$((SEED + 1000000))" &
record_blind out="${FURTHER}_2" episodes="$((BLIND / 2))" seed="$SEED" &
wait -n
wait -n
scd-data data.root="$DATA"

# Learning rates are half of those from nothing, and the dynamics' batches twice as large: less noise near the end.
# Self-rollouts from the start: the world has learned to copy already.
scd-train data=zarr data.root="$DATA.zarr" data.holdout="$HOLDOUT" out="$OUT" init="$WORLD" init_pretrain=true \
    model=small model.patch=16 model.window=4 model.encoder_layers=3 model.fusion=concat model.num_steps=1 \
    prior.width=320 "prior.extra_datasets=[$FURTHER,${FURTHER}_2${MORE:+,$MORE}]" \
    prior.dynamics.steps=30000 prior.dynamics.batch_size=512 prior.dynamics.rollout_length=6 \
    prior.dynamics.time_share="$SHARE" prior.dynamics.lr=8e-4 prior.dynamics.muon_lr=0.006 \
    prior.outcome.lr=8e-4 prior.outcome.steps=6000 prior.renderer.steps=0 \
    model.state_weight=0 model.reward_weight=0 model.success_weight=0 model.change_weight=1 \
    model.noise_samples=1 model.ctx_noise=0.1 model.self_rollout_share=0.5 self_rollout_start=0 \
    batch_size=6 sequence_length=6 \
    optimizer.lr=4e-4 optimizer.decoder_lr_ratio=1.0 optimizer.warmup_share=0.03 optimizer.decay_share=0.6 \
    optimizer.ema_decay=0.998 \
    steps=100000 time_budget="$BUDGET" checkpoint_every=500 eval_every=1000

scd-evaluate world="$OUT/world" data=zarr data.root="$DATA.zarr" num_videos=4 out="$OUT/evaluation"

# Half precision halves its size; the evaluation's report goes into the world's card.
python -c "from scd_world.training.export import export_world
export_world('$OUT/world', '$OUT/evaluation', '$PACKAGE')"
