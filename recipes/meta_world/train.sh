#!/usr/bin/env bash
# A world of a robot arm with two cameras, from nothing: record Meta-World, train, measure, rank policies in it
# (docs/arm.md). Needs `pip install 'lerobot[metaworld]'`; on 2 CPU cores two hours, mostly rendering and training.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH="$PWD/.venv/bin:$PATH"
export PYTHONPATH="recipes/meta_world${PYTHONPATH:+:$PYTHONPATH}" MUJOCO_GL=${MUJOCO_GL:-osmesa}

DATA=${DATA:-data/push}
OUT=${OUT:-runs/push}
BUDGET=${BUDGET:-3000}     # seconds of training
# 0: the puck's recorded pose is left out, as on a robot that does not know it: recipes/cameras/world.sh.
PUCK_POSE=${PUCK_POSE:-1}

# The expert, trembling, sluggish and late; a random walk in one episode of five.
policy_mixture="[{policy:meta_world:Expert,weight:3},
      {policy:meta_world:Expert,degrade:{noise:[0.2,0.5,1.0]},weight:3},
      {policy:meta_world:Expert,degrade:{slow:[0.1,0.3],delay:[0,4,8]},weight:2},
      {policy:random_walk,policy_kwargs:{speed:[0.03,0.06,0.12]},weight:2}]"
record() {
    scd-record env=meta_world:MetaWorld-v0 max_steps=120 task="Push the puck to the goal" "$@"
}
record "policy_mixture=${policy_mixture//[[:space:]]/}" out="$DATA" episodes="${EPISODES:-300}"

if [ "$PUCK_POSE" = 0 ]; then
    export BUDGET READ='data.drop_features=[observation.environment_state]'
    exec recipes/cameras/world.sh "$DATA" "$OUT"
fi

# The puck's pose is recorded: the state prior predicts it, and learns that from recordings without images too.
record "policy_mixture=${policy_mixture//[[:space:]]/}" out="${DATA}_blind" episodes=2000 \
    seed=1000000 'env_kwargs={render_images:false,cameras:[]}'
scd-train data=lerobot data.root="$DATA" out="$OUT" \
    model=small model.patch=16 model.window=4 model.encoder_layers=3 model.fusion=concat model.num_steps=2 \
    model.noise_samples=1 model.ctx_noise=0.1 model.self_rollout_share=0.5 batch_size=6 sequence_length=6 \
    optimizer.lr=8e-4 optimizer.decoder_lr_ratio=1.0 optimizer.warmup_share=0.03 optimizer.decay_share=0.6 \
    optimizer.ema_decay=0.998 model.state_weight=0 model.reward_weight=0 model.success_weight=0 \
    model.change_weight=1 "prior.extra_datasets=[${DATA}_blind]" prior.dynamics.time_share=0.35 \
    prior.dynamics.steps=30000 prior.outcome.time_share=0.08 prior.renderer.steps=14000 \
    prior.renderer.time_share=0.25 steps=100000 time_budget="$BUDGET" checkpoint_every=300 eval_every=500
scd-evaluate world="$OUT/world" data=zarr data.root="$OUT/windows.zarr" context=4 num_videos=4 out="$OUT/evaluation"
