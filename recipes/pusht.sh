#!/usr/bin/env bash
# A PushT world like the shipped one, from nothing: record, check, train, measure, package (docs/pusht.md has the
# log of the shipped one). 2 CPU cores: about 10 minutes of recording and BUDGET seconds of training; the same
# command again resumes.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"

EPISODES=${EPISODES:-647}
BUDGET=${BUDGET:-6000}  # seconds of training, both parts together

# Every skill, failures included: a world that saw only experts cannot imagine a mistake.
scd-record env=pusht out=data/pusht episodes="$EPISODES" max_steps=150 task="Push the T onto the goal" \
    'mix=[{policy:scripted_pusht,policy_kwargs:{skill:[1.0,0.9,0.8,0.6,0.4,0.2,0.0]},share:7},
          {policy:random_walk,policy_kwargs:{speed:[0.03,0.06]},share:1}]'
scd-data data.root=data/pusht

train() {
    scd-train data=zarr data.root=data/pusht.zarr model=small model.patch=16 model.window=4 model.draws=1 \
        model.ctx_noise=0.1 batch_size=6 clip_steps=6 optimiser.lr=8e-4 optimiser.decoder_lr=1.5 \
        optimiser.ema=0.998 steps=100000 eval_every=1000 "$@"
}

# First on what was recorded, then on what the model itself makes of it: stepping shows it nothing else.
train out=runs/pusht_base time_budget="$((BUDGET * 3 / 5))" optimiser.decay=0
train out=runs/pusht time_budget="$((BUDGET * 2 / 5))" optimiser.decay=0.4 \
    init=runs/pusht_base/world model.own_history=0.6

scd-evaluate world=runs/pusht/world data=zarr data.root=data/pusht.zarr out=runs/pusht/evaluation

# Half precision halves the package; the measured report goes into the world's card.
python -c "from scd_world.publish import package
package('runs/pusht/world', 'runs/pusht/evaluation', 'envs/scd_envs/worlds/pusht')"
