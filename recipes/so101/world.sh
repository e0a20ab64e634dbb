#!/usr/bin/env bash
# A world of the SO-101 from its camera and joints alone, and how it ranks policies (docs/so101.md):
#
#     pip install 'lerobot_env_scd_world[so101]'      # MuJoCo and the arm; pictures need EGL or OSMesa
#     recipes/so101/world.sh data/so101 runs/so101    # record, learn, simulate, rank
#     recipes/so101/world.sh data/so101 runs/so101 rank
#
# Every part goes on where a kill left it. BUDGET: seconds of training. The world finds the block in its pictures
# by itself (BLOCK=found). BLOCK=unknown leaves that out, and BLOCK=told gives it the block's recorded pose (another
# OUT each): no robot knows it, and the report has to say so.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export MUJOCO_GL=${MUJOCO_GL:-egl}

BUDGET=${BUDGET:-3600} BLOCK=${BLOCK:-found} EPISODES=${EPISODES:-300} STARTS=${STARTS:-40}
DATA=$1 OUT=$2 POLICIES=$here/policies.yaml

record() { "$here/record.sh" "$DATA"; }

# One episode in seven is held out: its first frame is a start of the ranking.
learn() {
    if [ "$BLOCK" = told ]; then
        # What the state prior learns needs no pictures: four times as many episodes, in minutes.
        IMAGES=render_images:false SEED=1000000 EPISODES=$((4 * EPISODES)) "$here/record.sh" "${DATA}_blind"
        scd-data data.root="$DATA" data.image_size=64 out="$OUT/data.zarr"
        scd-train data=zarr data.root="$OUT/data.zarr" data.holdout=0.14 "prior.extra_datasets=[${DATA}_blind]" \
            model="${MODEL:-small}" model.patch=8 prior.dynamics.time_share=0.4 prior.dynamics.steps=30000 \
            steps=1000000 time_budget="$BUDGET" checkpoint_every=250 out="$OUT/train"
    elif [ "$BLOCK" = found ]; then
        scd-data data.root="$DATA" data.image_size=64 "data.drop_features=[observation.environment_state]" \
            out="$OUT/data.zarr"
        scd-train data=zarr data.root="$OUT/data.zarr" data.holdout=0.14 codec.objects=1 \
            model="${MODEL:-small}" model.patch=16 model.window=4 model.encoder_layers=3 model.fusion=concat \
            model.num_steps=1 model.noise_samples=1 model.state_weight=0 model.reward_weight=0 model.success_weight=0 \
            batch_size=6 sequence_length=6 optimizer.lr=8e-4 prior.dynamics.steps=800 prior.dynamics.batch_size=64 \
            prior.dynamics.time_share=0.4 prior.outcome.steps=1000 prior.renderer.steps=6000 \
            prior.renderer.time_share=0.3 steps=1000000 time_budget="$BUDGET" checkpoint_every=250 out="$OUT/train"
    else
        READ="data.image_size=64 data.drop_features=[observation.environment_state]" \
            TRAIN="data.holdout=0.14 prior.outcome.time_share=0.03" BUDGET=$BUDGET \
            "$here/../cameras/world.sh" "$DATA" "$OUT" "prepare train"
    fi
    scd-evaluate world="$OUT/train/world" data.root="$OUT/data.zarr" windows=40 draws=1 sweep_starts=0 \
        out="$OUT/evaluation"
}

# What policies know of the block: what a network finds in the picture.
estimator() { python "$here/estimator.py" "$DATA" "$OUT/train/world" runs/so101_estimator.safetensors; }

# The same policies in MuJoCo, from the very episodes that the world starts from.
simulate() {
    python "$here/simulate.py" "$DATA" "$OUT/train/world" "$POLICIES" "$OUT/simulator.csv" --episodes "$STARTS"
}

rank() {
    play=(scd-rank world="$OUT/train/world" episodes="$STARTS" batch_size="$STARTS" max_steps=40 num_steps=1 out="$OUT/rank")
    if [ "$BLOCK" = told ]; then # the same policies are told, too, and the simulator starts from the recorded state
        sed 's/state_estimator: [^,]*, /needs_images: false, /' "$POLICIES" > "$OUT/policies.yaml"
        "${play[@]}" policies="$OUT/policies.yaml" simulator=so101 simulator_kwargs='{size:64,cameras:[front]}'
    else
        "${play[@]}" policies="$POLICIES" labels="$OUT/simulator.csv"
    fi
}

[ "$BLOCK" = told ] && parts="record learn rank" || parts="record learn estimator simulate rank"
mkdir -p "$OUT"
for part in ${3:-$parts}; do "$part"; done
