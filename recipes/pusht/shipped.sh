#!/usr/bin/env bash
# The shipped PushT world from nothing, unattended: one run of recipes/pusht/train.sh, and three rounds of
# recipes/pusht/continue.sh, each from the last one's world. About eight hours on two CPU cores; docs/pusht.md has the
# log; the same command resumes.
set -euo pipefail
cd "$(dirname "$0")/../.."

export DATA=data/pusht
PACKAGE=runs/pusht/package recipes/pusht/train.sh  # 1,030 episodes with images, 7,500 without

# 8,000 new episodes without images, then an hour more of the same, then 12,000 new ones.
first=${DATA}_blind,${DATA}_blind_2
WORLD=runs/pusht/world OUT=runs/pusht_2 MORE=$first \
    BUDGET=4400 PACKAGE=runs/pusht_2/package recipes/pusht/continue.sh
WORLD=runs/pusht_2/world OUT=runs/pusht_3 MORE=$first \
    BUDGET=5400 PACKAGE=runs/pusht_3/package recipes/pusht/continue.sh
WORLD=runs/pusht_3/world OUT=runs/pusht_4 MORE=$first,${DATA}_further,${DATA}_further_2 \
    FURTHER=${DATA}_more SEED=5000000 BLIND=12000 SHARE=0.7 BUDGET=5400 \
    PACKAGE=${PACKAGE:-envs/scd_envs/worlds/pusht} recipes/pusht/continue.sh
