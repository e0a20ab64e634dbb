"""Settings that once had other names: who still writes the old one is told the new one."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

RENAMED = {
    "model.kind": "model.architecture",
    "model.draws": "model.noise_samples",
    "model.octaves": "model.fourier_octaves",
    "model.interval": "model.average_velocity",
    "model.frame_ghost": "model.frame_blend",
    "model.own_history": "model.self_rollout_share",
    "model.body_layers": "prior.layers",
    "model.body_width": "prior.width",
    "model.sketch_parts": "prior.renderer_parts",
    "body.more": "prior.extra_datasets",
    "body.apart": "prior.calibration_share",
    "body.steps": "prior.dynamics.steps",
    "body.batch_size": "prior.dynamics.batch_size",
    "body.unroll": "prior.dynamics.rollout_length",
    "body.single": "prior.dynamics.single_step_share",
    "body.noise": "prior.dynamics.init_noise",
    "body.lr": "prior.dynamics.lr",  # and of prior.outcome, which has one of its own
    "body.inner_lr": "prior.dynamics.muon_lr",
    "body.share": "prior.dynamics.time_share",
    "body.outcome_steps": "prior.outcome.steps",
    "body.outcome_batch": "prior.outcome.batch_size",
    "body.outcome_share": "prior.outcome.time_share",
    "sketch.steps": "prior.renderer.steps",
    "sketch.batch_size": "prior.renderer.batch_size",
    "sketch.cells": "prior.renderer.cell_share",
    "sketch.lr": "prior.renderer.lr",
    "sketch.foreground": "prior.renderer.foreground_weight",
    "sketch.share": "prior.renderer.time_share",
    "optimiser.lr": "optimizer.lr",
    "optimiser.beta1": "optimizer.beta1",
    "optimiser.beta2": "optimizer.beta2",
    "optimiser.weight_decay": "optimizer.weight_decay",
    "optimiser.decoder_lr": "optimizer.decoder_lr_ratio",
    "optimiser.warmup": "optimizer.warmup_share",
    "optimiser.decay": "optimizer.decay_share",
    "optimiser.floor": "optimizer.min_lr_ratio",
    "optimiser.clip": "optimizer.grad_clip_norm",
    "optimiser.ema": "optimizer.ema_decay",
    "data.ignore": "data.drop_features",
    "init_lessons": "init_pretrain",
    "clip_steps": "sequence_length",
    "own_history": "self_rollout_share",
    "own_history_from": "self_rollout_start",
    "accumulate": "grad_accumulation",
    "world_starts": "num_start_states",
    "draws": "noise_samples",
    "beside": "compare_worlds",
    "changed_by": "changed_threshold",
    "films": "num_videos",
    "videos": "store_as_video",
    "sweep_moments": "sweep_starts",
    "rivals": "baselines",
    "against": "compare",
    "longest": "max_round_seconds",
    "rows": "num_envs",
    "train_batch": "train_batch_size",
    "mix": "policy_mixture",
    "share": "weight",
    "flaws": "degrade",
    "eyes": "state_estimator",
    "pictures": "needs_images",
    "only": "only_policies",
    "sides": "only_sides",
    "tuned_last": "finetune_last",
    "tune_updates": "finetune_updates",
    "tune_lr": "finetune_lr",
    "tune_batch": "finetune_batch_size",
    "tune_steps": "finetune_length",
    "recorded": "recorded_episodes",
}
ELSEWHERE = {"max_steps": "horizon"}  # of scd-record, scd-rank and scd_policies' rollout → of the others


def suggestion(key: str, known: Collection[str]) -> str:
    """Gives "; did you mean …?" for a setting that is not among the `known` ones, or nothing to say."""
    meant = RENAMED.get(key)
    if meant in known:
        return f"; did you mean {meant}, as it is called now?"
    if ELSEWHERE.get(key) in known:
        return f"; did you mean {ELSEWHERE[key]}, as it is called here?"
    close = get_close_matches(key, known, n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""
