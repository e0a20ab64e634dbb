#!/usr/bin/env bash
# A PushT world like the shipped one, from nothing: record, check, train, evaluate, export (docs/pusht.md has the
# log of the shipped one). 2 CPU cores: half an hour of recording, BUDGET seconds of training, and 4 minutes of
# evaluation; the same command resumes. recipes/pusht/continue.sh trains a world further, on further recordings.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH="$PWD/.venv/bin:$PATH"

DATA=${DATA:-data/pusht}
EPISODES=${EPISODES:-1030}
HOLDOUT=${HOLDOUT:-0.095}  # of them: 98 episodes
BLIND=${BLIND:-7500}       # episodes without images, for the state prior alone
BUDGET=${BUDGET:-6000}     # seconds of training; the state prior takes three quarters of it
OUT=${OUT:-runs/pusht}
PACKAGE=${PACKAGE:-envs/scd_envs/worlds/pusht}

. recipes/pusht/record.sh

# A recorder keeps one core busy, and images take three times as long: two recorders end at about the same time.
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
{
    record out="$DATA" episodes="$EPISODES"
    record_blind out="${DATA}_blind_2" episodes="$((BLIND / 3))" seed=2000000
} &
record_blind out="${DATA}_blind" episodes="$((BLIND - BLIND / 3))" seed=1000000 &
wait -n
wait -n
scd-data data.root="$DATA"

# The block's pose is recorded, so the state prior predicts state, reward and success without images: the heads
# that read them off the context as well (state_weight, reward_weight, success_weight) have nothing to add here.
# The renderer shows what moves, so moving pixels need no extra weight (change_weight).
scd-train data=zarr data.root="$DATA.zarr" data.holdout="$HOLDOUT" out="$OUT" \
    model=small model.patch=16 model.window=4 \
    model.encoder_layers=3 model.fusion=concat model.num_steps=1 \
    prior.width=320 "prior.extra_datasets=[${DATA}_blind,${DATA}_blind_2]" \
    prior.dynamics.steps=30000 prior.dynamics.batch_size=256 prior.dynamics.rollout_length=6 \
    prior.dynamics.lr=1.5e-3 prior.outcome.lr=1.5e-3 prior.outcome.steps=8000 prior.renderer.steps=14000 \
    model.state_weight=0 model.reward_weight=0 model.success_weight=0 model.change_weight=1 \
    model.noise_samples=1 model.ctx_noise=0.1 model.self_rollout_share=0.5 batch_size=6 sequence_length=6 \
    optimizer.lr=8e-4 optimizer.decoder_lr_ratio=1.0 optimizer.warmup_share=0.03 optimizer.decay_share=0.6 \
    optimizer.ema_decay=0.998 \
    steps=100000 time_budget="$BUDGET" checkpoint_every=500 eval_every=1000

scd-evaluate world="$OUT/world" data=zarr data.root="$DATA.zarr" num_videos=4 out="$OUT/evaluation"

# Half precision halves its size; the evaluation's report goes into the world's card.
python -c "from scd_world.training.export import export_world
export_world('$OUT/world', '$OUT/evaluation', '$PACKAGE')"
