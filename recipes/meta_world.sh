#!/usr/bin/env bash
# A world of a robot arm with two cameras, from nothing: record Meta-World, train, measure, rank policies in it
# (docs/arm.md). Needs `pip install 'lerobot[metaworld]'`; on 2 CPU cores two hours, most of them drawing and training.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
export PYTHONPATH="recipes${PYTHONPATH:+:$PYTHONPATH}" MUJOCO_GL=${MUJOCO_GL:-osmesa}

DATA=${DATA:-data/push}
OUT=${OUT:-runs/push}
BUDGET=${BUDGET:-3000}  # seconds of training
TOLD=${TOLD:-1}         # 0: the puck's pose is ignored, as on a robot that does not know it

# The expert, trembling, sluggish and late; a random walk in one episode of five.
mix="[{policy:meta_world:Expert,share:3},
      {policy:meta_world:Expert,flaws:{noise:[0.2,0.5,1.0]},share:3},
      {policy:meta_world:Expert,flaws:{slow:[0.1,0.3],delay:[0,4,8]},share:2},
      {policy:random_walk,policy_kwargs:{speed:[0.03,0.06,0.12]},share:2}]"
record() {
    scd-record env=meta_world:MetaWorld-v0 max_steps=120 task="Push the puck to the goal" "$@"
}
record "mix=${mix//[[:space:]]/}" out="$DATA" episodes=300

few=(model=small model.patch=16 model.window=4 model.encoder_layers=3 model.fusion=concat model.num_steps=2
    model.draws=1 model.ctx_noise=0.1 model.own_history=0.5 batch_size=6 clip_steps=6
    optimiser.lr=8e-4 optimiser.decoder_lr=1.0 optimiser.warmup=0.03 optimiser.ema=0.998 optimiser.decay=0.6
    steps=100000 time_budget="$BUDGET" checkpoint_every=300 eval_every=500 out="$OUT")
if [ "$TOLD" = 1 ]; then
    # The puck's pose is recorded: the body knows where it goes, and learns that from recordings without pictures too.
    record "mix=${mix//[[:space:]]/}" out="${DATA}_blind" episodes=2000 seed=1000000 'env_kwargs={draw:false,cameras:[]}'
    scd-train data=lerobot data.root="$DATA" "${few[@]}" \
        model.state_weight=0 model.reward_weight=0 model.success_weight=0 model.change_weight=1 \
        "body.more=[${DATA}_blind]" body.share=0.35 body.steps=30000 body.outcome_share=0.08 \
        sketch.steps=14000 sketch.share=0.25
else
    scd-train data=lerobot data.root="$DATA" 'data.ignore=[observation.environment_state]' "${few[@]}" \
        body.share=0.1 body.outcome_share=0.03 sketch.share=0.15
fi
scd-evaluate world="$OUT/world" data=zarr data.root="$OUT/windows.zarr" context=4 films=4 out="$OUT/evaluation"
