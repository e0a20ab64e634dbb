#!/usr/bin/env bash
# A PushT world from pictures and the agent's place alone: nobody tells where the block is (docs/cameras.md).
#
#     recipes/pusht/cameras.sh data/pusht runs/pusht      # record, then the parts of recipes/cameras/world.sh
#
# It finds the block in the pictures by itself. OBJECTS=0 leaves that out, and the block is one of the things that an
# autoencoder's latents show. EPISODES are recorded unless data/pusht is there already; BUDGET, PIECE and TRAIN are
# those of recipes/cameras/world.sh. scd-evaluate measures the block's area and outline in what was imagined.
set -euo pipefail
here=$(dirname "$0")
. "$here/record.sh"

[ -d "$1" ] || record out="$1" episodes="${EPISODES:-420}"
OBJECTS=${OBJECTS:-1}
if [ "$OBJECTS" != 0 ]; then # as the shipped world is trained, whose block is told; one denoising step, none to distill
    PRIOR="prior.width=320 prior.dynamics.steps=3000 prior.dynamics.batch_size=256 prior.dynamics.rollout_length=6
        prior.dynamics.lr=1.5e-3 prior.dynamics.time_share=0.45 prior.outcome.lr=1.5e-3 prior.outcome.steps=3000
        prior.outcome.time_share=0.03 prior.renderer.steps=14000 prior.renderer.time_share=0.18"
    TRAIN="codec.objects=$OBJECTS steps=1000000 model=small model.patch=16 model.window=4 model.encoder_layers=3 model.fusion=concat
        model.num_steps=1 model.state_weight=0 model.reward_weight=0 model.success_weight=0 model.change_weight=1
        model.noise_samples=1 model.ctx_noise=0.1 model.self_rollout_share=0.5 batch_size=6 sequence_length=6
        optimizer.lr=8e-4 optimizer.decoder_lr_ratio=1.0 optimizer.warmup_share=0.03 optimizer.decay_share=0.6
        optimizer.ema_decay=0.998 ${TRAIN:-}"
    set -- "$1" "$2" "${3:-prepare train evaluate}"
    export PRIOR=${PRIOR//$'\n'/ } TRAIN=${TRAIN//$'\n'/ }
fi
READ=${READ:-data.drop_features=[observation.environment_state]} exec "$here/../cameras/world.sh" "$@"
