"""What worlds and checkpoints of format 3 called things: one table, old to new, read when such a one is
opened.

Format 4 has the field's words, a state prior that may be absent, and keeps the prior's closed-form fits among
its weights instead of among the statistics.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

FORMAT = 3

MODEL_KEYS = {
    "kind": "architecture",
    "octaves": "fourier_octaves",
    "interval": "average_velocity",
    "draws": "noise_samples",
    "frame_ghost": "frame_blend",
    "own_history": "self_rollout_share",
}
PRIOR_KEYS = {"body_layers": "layers", "body_width": "width", "sketch_parts": "renderer_parts"}
PROVENANCE_KEYS = {
    "more": "extra_datasets",
    "apart": "calibration_share",
    "measured": "eval",
    "init_provenance": "parent",
    "refined": "edited",
    "clip_steps": "sequence_length",
}
TRAIN_KEYS = {
    "optimiser": "optimizer",
    "init_lessons": "init_pretrain",
    "clip_steps": "sequence_length",
    "own_history_from": "self_rollout_start",
    "accumulate": "grad_accumulation",
    "world_starts": "num_start_states",
}
OPTIMIZER_KEYS = {
    "decoder_lr": "decoder_lr_ratio",
    "warmup": "warmup_share",
    "decay": "decay_share",
    "floor": "min_lr_ratio",
    "clip": "grad_clip_norm",
    "ema": "ema_decay",
}
DATA_KEYS = {"ignore": "drop_features"}
DYNAMICS_KEYS = {
    "steps": "steps",
    "batch_size": "batch_size",
    "unroll": "rollout_length",
    "single": "single_step_share",
    "noise": "init_noise",
    "lr": "lr",
    "inner_lr": "muon_lr",
    "share": "time_share",
}
OUTCOME_KEYS = {
    "outcome_steps": "steps",
    "outcome_batch": "batch_size",
    "lr": "lr",
    "outcome_share": "time_share",
}
RENDERER_KEYS = {"cells": "cell_share", "foreground": "foreground_weight", "share": "time_share"}
STATS_KEYS = {"state_change": "state_delta_rms", "hold": "hold_action"}
# Statistics that became buffers of the prior.
FITTED = {
    "linear": "prior.dynamics.linear.weight",
    "linear_rest": "prior.dynamics.linear.residual",
    "law_mean": "prior.dynamics.constraints.mean",
    "law_span": "prior.dynamics.constraints.basis",
    "law_squares": "prior.dynamics.constraints.quadratics",
}
# Names of weights, in turn; the first of each kind that fits counts.
PLACES = (
    (r"^body\.net\.", "prior.dynamics.residual_net."),
    (r"^body\.outcome\.", "prior.dynamics.outcome_net."),
    (r"^sketch\.", "prior.renderer."),
    (r"^doubt\.", "prior.uncertainty."),
    (r"^constant$", "core.heads.constant"),
    (r"^(ctx_scale|ctx_shift|encoder|decoder|net|norm|heads)\b", r"core.\1"),
)
PARTS = (
    (r"^(prior\.dynamics\.\w+)\.waves\.", r"\1.fourier."),
    (r"^(prior\.dynamics\.\w+)\.into\.", r"\1.embed."),
    (r"^(prior\.renderer)\.place\.", r"\1.pose_linear."),
    (r"^(prior\.renderer)\.bend\.", r"\1.pose_residual."),
    (r"^(prior\.renderer)\.look\.", r"\1.coord_embed."),
    (r"^(prior\.renderer)\.waves\.", r"\1.fourier."),
    (r"^(prior\.renderer)\.draw\.", r"\1.mlp."),
    (r"^(prior\.uncertainty)\.curve$", r"\1.calibration_curve"),
    (r"^(core\.\w+)\.pixels_in\.", r"\1.patch_embed."),
    (r"^(core\.\w+)\.place$", r"\1.position"),
    (r"^(core\.\w+)\.kind$", r"\1.type_embed"),
    (r"^(core\.\w+)\.body_in\.", r"\1.state_embed."),
    (r"^(core\.\w+)\.condition\.", r"\1.modulation_embed."),
    (r"^(core\.\w+)\.until\.", r"\1.target_time."),
    (r"^(core\.\w+)\.join\.", r"\1.merge."),
    (r"^(core\.\w+)\.final\.", r"\1.pixel_head."),
    (r"^(core\.net)\.known_body\.", r"\1.known_state_embed."),
    (r"^(core\.net)\.known_condition\.", r"\1.known_modulation_embed."),
    (r"^(core\.net)\.drawn_body\.", r"\1.noisy_state_embed."),
    (r"^(core\.net)\.drawn_condition\.", r"\1.noisy_modulation_embed."),
)


def rename(values: Mapping[str, Any], table: Mapping[str, str]) -> dict[str, Any]:
    """Gives the same with new keys, those that the table does not name as they are."""
    return {table.get(key, key): value for key, value in values.items()}


def upgrade_model(model: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Gives the settings of the model, and those that became the prior's."""
    prior = {new: model[old] for old, new in PRIOR_KEYS.items() if old in model}
    rest = {name: value for name, value in model.items() if name not in PRIOR_KEYS}
    return rename(rest, MODEL_KEYS), {"kind": "state"} | prior


def upgrade_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Gives a world's config.json as format 4 has it."""
    model, prior = upgrade_model(config["model"])
    return {**config, "model": model, "prior": prior, "provenance": upgrade_provenance(config["provenance"])}


def upgrade_train_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Gives the settings of a training, as its checkpoint has them, under the names of today."""
    new = rename(config, TRAIN_KEYS)
    body, sketch = new.pop("body"), new.pop("sketch")
    new["model"], prior = upgrade_model(new["model"])
    new["optimizer"] = rename(new["optimizer"], OPTIMIZER_KEYS)
    new["data"] = rename(new["data"], DATA_KEYS)
    new["prior"] = prior | {
        "extra_datasets": body["more"],
        "calibration_share": body.get("apart", 0.0),
        "dynamics": {name: body[old] for old, name in DYNAMICS_KEYS.items()},
        "outcome": {name: body[old] for old, name in OUTCOME_KEYS.items()},
        "renderer": rename(sketch, RENDERER_KEYS),
    }
    return new


def upgrade_provenance(made: Mapping[str, Any]) -> dict[str, Any]:
    """Gives what a world was trained with, and the worlds before it, under the new names."""
    made = rename(made, PROVENANCE_KEYS)
    if made.get("parent"):
        made["parent"] = upgrade_provenance(made["parent"])
    return made


def upgrade_name(name: str) -> str:
    """Gives a weight's name in format 4; one that is new already stays."""
    for table in (PLACES, PARTS):
        for old, new in table:
            if re.search(old, name):
                name = re.sub(old, new, name)
                break
    return name


def upgrade_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gives weights, averages or an optimizer's moments (`<weight>/<moment>`) under the new names."""
    renamed = {}
    for name, value in weights.items():
        weight, slash, moment = name.partition("/")
        renamed[upgrade_name(weight) + slash + moment] = value
    return renamed


def upgrade_stats(stats: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gives the statistics that are left, and what of them now belongs to the prior's weights."""
    fitted = {new: stats[old] for old, new in FITTED.items() if old in stats}
    kept = {name: value for name, value in stats.items() if name not in FITTED}
    return rename(kept, STATS_KEYS), fitted


def only(names: Iterable[str], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gives those of the weights that a model has: one without a prior leaves the prior's."""
    wanted = set(names)
    return {name: value for name, value in weights.items() if name in wanted}


def knots_of_line(weights: dict[str, Tensor], known: Tensor) -> None:
    """Replaces an uncertainty that was a straight line of logarithms by its values at the knots, in place."""
    line = weights.pop("prior.uncertainty.line", None)
    if line is not None:
        curve = torch.stack([known.to(line), line[0] + line[1] * known.to(line)])
        weights["prior.uncertainty.calibration_curve"] = curve
