#!/usr/bin/env bash
# Quality against denoising steps on PushT (docs/distill.md): two worlds without a renderer, so that all that is
# generated comes through the decoder; each distilled in two ways, and then trained on rollouts of its own.
#   state  has agent, block and action: what comes next is nearly certain
#   video  has every fourth frame and nothing else: the hand may go anywhere
# Needs the small store of recipes/ablations/ablate.sh. The same command resumes.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH="$PWD/.venv/bin:$PATH"

STORE=${STORE:-data/pusht48.zarr}
OUT=${OUT:-runs/distill}
VIDEO=${VIDEO:-$OUT/video.zarr}

[ -e "$VIDEO" ] || python - "$STORE" "$VIDEO" <<'PY'
import sys
from dataclasses import replace

import numpy as np

from scd_datasets.store.arrays import EpisodeArrays
from scd_datasets.store.store import WindowStore
from scd_datasets.store.writer import write_store

store = WindowStore.open(sys.argv[1], in_memory=False)
images = {"agent_pos": (), "environment_state": (), "action": ("nothing",), "reward": False, "success": False}
bounds = {"action_low": (-1.0,), "action_high": (1.0,), "fps": 2, "horizon": -(-store.schema.horizon // 4)}


def video(i: int) -> EpisodeArrays:
    pixels = store.windows(np.array([i]), np.array([0]), store.lengths[i] - 1)["pixels"][0, ::4]
    nothing = np.zeros((len(pixels), 1), np.float32)
    reward, index = nothing[:, 0], int(store.episode_index[i])
    return EpisodeArrays(pixels, nothing[:, :0], nothing, reward, reward > 0, index)


write_store(sys.argv[2], replace(store.schema, **images, **bounds), map(video, range(len(store.lengths))))
PY

quiet=(batch_size=3 sequence_length=6 eval_every=100000 eval_windows=1 keep_checkpoints=1 checkpoint_every=500)
world=(data=zarr model=micro model.patch=12 model.window=4 model.noise_samples=1
    prior.renderer_parts=0 model.conv_channels=16 model.num_steps=4 optimizer.lr=1e-3 optimizer.decay_share=0.5 optimizer.ema_decay=0.995)
prior=(prior.dynamics.steps=1000 prior.dynamics.batch_size=128 prior.dynamics.rollout_length=6
    prior.dynamics.lr=1.5e-3 prior.outcome.lr=1.5e-3 prior.outcome.steps=300)

scd-train "${world[@]}" "${prior[@]}" "${quiet[@]}" data.root="$STORE" steps=2000 out="$OUT/state"
scd-train "${world[@]}" "${quiet[@]}" prior.layers=0 data.root="$VIDEO" steps=5000 out="$OUT/video"

distill() { # name, method, what is distilled, its store; further settings. The end measures.
    scd-distill world="$OUT/$3/world" method="$2" out="$OUT/$1_$2" data.root="$4" noise_samples=1 "${quiet[@]}" \
        report_windows=0 "${@:5}"
}
state() { distill state consistency state "$STORE" steps=400 "$@"; }
video() { distill video consistency video "$VIDEO" steps=600 optimizer.lr=5e-4 "$@"; }
state
video
distill state meanflow state "$STORE" steps=150
distill video meanflow video "$VIDEO" steps=300 optimizer.lr=5e-4

# Drift: the same world after as many further updates on its own rollouts, and on recorded histories.
scd-train "${world[@]}" "${quiet[@]}" data.root="$STORE" init="$OUT/state_consistency/world" steps=150 \
    model.num_steps=1 optimizer.lr=1e-4 optimizer.decoder_lr_ratio=1 optimizer.decay_share=0.3 optimizer.ema_decay=0.99 \
    out="$OUT/state_recorded"
distill state rollout state_consistency "$STORE" steps=150 report_windows=16 report_steps=[1] report_horizon=64 \
    compare_worlds="{base: $OUT/state/world, recorded: $OUT/state_recorded/world}"

# Quality against denoising steps: the same commands, with no updates left, measure.
state report_windows=16 compare_worlds="{meanflow: $OUT/state_meanflow/world, rollout: $OUT/state_rollout/world}"
video report_windows=16 compare_worlds="{meanflow: $OUT/video_meanflow/world}"
