#!/usr/bin/env bash
# Recordings of the SO-101 arm in MuJoCo: the scripted policy at all its skills, degraded, and a random walk
# (docs/so101.md). The same command continues where a kill left it; EPISODES may be raised later.
#
#     recipes/so101/record.sh data/so101            # one camera, 64 px
set -euo pipefail

OUT=$1
EPISODES=${EPISODES:-300}
IMAGES=${IMAGES:-size:64,cameras:[front]}   # render_images:false leaves them out

mixture="[{policy:scripted_so101,weight:3},
    {policy:scripted_so101,policy_kwargs:{skill:[0.9,0.8,0.7,0.6,0.4]},weight:4},
    {policy:scripted_so101,degrade:{noise:[1,3,6],slow:[0.7,0.5],delay:[0,1,2]},weight:2},
    {policy:scripted_so101,degrade:{offset:[[3,0,0,0,0,0],[0,4,0,0,0,0],[-5,0,0,0,0,0],[0,0,0,0,0,12]]},weight:2},
    {policy:random_walk,policy_kwargs:{speed:[0.03,0.06]}}]"
scd-record env=so101 env_kwargs="{$IMAGES}" "policy_mixture=${mixture//[[:space:]]/}" max_steps=40 \
    task="Pick up the block" episodes="$EPISODES" seed="${SEED:-0}" out="$OUT"
