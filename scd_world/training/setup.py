"""What a training starts with: model and units, windows, the world that it leaves, what it is checked on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from scd_datasets.sources.source import listed
from scd_datasets.store.loader import WindowLoader
from scd_datasets.store.statistics import compute_stats
from scd_datasets.store.store import rows_of
from scd_world.codec.codec import Codec
from scd_world.codec.config import CodecConfig
from scd_world.model.filter import STEPS
from scd_world.model.world_model import WorldModel
from scd_world.robot_data.clip import Clip
from scd_world.robot_data.compatibility import check_schema
from scd_world.robot_data.normalizer import Normalizer
from scd_world.training.config import TrainConfig
from scd_world.training.export import pick_starts
from scd_world.training.pretrain import Pretraining
from scd_world.training.run_folder import RunFolder
from scd_world.training.validation import HeldOutValidation
from scd_world.utils.atomic_folder import replace_file
from scd_world.world import format3
from scd_world.world.build_model import build_model
from scd_world.world.world import World, init_from
from scd_world.world.world_config import parent_trainings

log = logging.getLogger(__name__)
FILTER_WINDOWS = 24


def first_model(
    config: TrainConfig,
    pretraining: Pretraining,
    run: RunFolder,
    saved: Mapping[str, Tensor] | None,
    codec: CodecConfig,
) -> tuple[WorldModel, Normalizer, dict[str, Any] | None]:
    """Builds the model before its first update, its prior pretrained: model, units, and the provenance of the
    world that its weights come from. saved: the weights of the checkpoint that is resumed, if there is one;
    what it will bring is left as it comes."""
    resuming = saved is not None
    normalizer, fitted = first_normalizer(config, pretraining, run, resuming)
    if saved is not None and not knows_joints(saved):
        normalizer = replace(normalizer, commanded_by=torch.full_like(normalizer.commanded_by, -1))
    prior = config.prior.architecture(codec.object_sizes)
    model = build_model(config.model, prior, pretraining.store.schema, normalizer)
    if fitted:
        model.load_state_dict(fitted, strict=False)
    elif config.init is None and not (resuming and run.stats.exists()):
        pretraining.fit_closed_form(model.prior, normalizer)
    if resuming:  # it needs no other world's weights, and must not fail where that world is gone
        return model, normalizer, None
    parent = init_from(model, config.init) if config.init is not None else None
    if parent is not None and (learnt := held_out_late(config, pretraining, parent)):
        pretraining.log_main(
            f"WARNING: {len(learnt)} of {len(pretraining.held_out)} held-out episodes trained the world that "
            f"this starts from, as the recording grew since or data.holdout is another ({listed(learnt)}): "
            "what is measured on them flatters. Evaluate on the others: scd-evaluate … episodes=[…]"
        )
    if config.init is None or config.init_pretrain:
        pretraining.run(model.prior, normalizer, parent)
    return model, normalizer, parent


def held_out_late(config: TrainConfig, pretraining: Pretraining, parent: Mapping[str, Any]) -> list[int]:
    """Lists the held-out episodes on which the world that weights come from, or one before it, was trained,
    as far as that can be known: with this recording, or with one of the same name, which had fewer episodes
    then."""
    store = pretraining.recorded
    held_out, late = store.episode_index[pretraining.held_out].tolist(), set()
    for made in (parent, *parent_trainings(parent)):
        same = made.get("data") in (config.data.repo_id, config.data.root)
        if (same or made.get("fingerprint") == store.fingerprint) and "held_out_episodes" in made:
            known = set(range(made["episodes"])) - set(made["held_out_episodes"])
            late |= known.intersection(held_out)
    return sorted(late)


def first_normalizer(
    config: TrainConfig, pretraining: Pretraining, run: RunFolder, resuming: bool
) -> tuple[Normalizer, dict[str, Any]]:
    """Measures the training episodes, or takes the units of the world that this training starts from: its
    weights learnt in these. Gives also what a run folder of format 3 keeps of the prior."""
    if resuming and run.stats.exists():  # whether or not init= is given once more
        stats = load_file(run.stats)
        old = set(format3.STATS_KEYS) <= set(stats)
        stats, fitted = format3.upgrade_stats(stats) if old else (stats, {})
        return Normalizer(**stats), fitted
    if config.init is None:
        if resuming and run.units.exists():  # as they were measured then, whatever is measured today
            return Normalizer.load(run.units), {}
        if not resuming:  # of a training that began with init= and came to no checkpoint
            run.stats.unlink(missing_ok=True)
        normalizer = compute_stats(pretraining.store, pretraining.episodes)
        if not resuming and pretraining.main:
            run.path.mkdir(parents=True, exist_ok=True)
            replace_file(run.units, normalizer.save)
        return normalizer, {}
    if resuming:
        raise ValueError(
            f"{config.out} did not begin with another world's weights: leave init={config.init} out to "
            "resume it, or choose another out="
        )
    with pretraining.accelerator.main_process_first():
        copy_normalizer(pretraining, config.init, run.stats)
    return Normalizer.load(run.stats), {}


def knows_joints(weights: Mapping[str, Tensor]) -> bool:
    """Says whether weights are of today; those of before had one network for all numbers of the state."""
    one_for_all = "prior.dynamics.residual_net.embed.weight" in weights
    return not one_for_all or any(name.startswith("prior.dynamics.joints.") for name in weights)


def training_windows(pretraining: Pretraining) -> WindowLoader:
    """Gives this process' share of the training windows."""
    config, accelerator = pretraining.config, pretraining.accelerator
    return WindowLoader(
        pretraining.store,
        pretraining.episodes,
        config.batch_size,
        config.sequence_length,
        config.seed,
        config.data.motion_share,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        anchors=config.model.anchor_frame,
    )


def world_of(model: WorldModel, normalizer: Normalizer, codec: Codec, pretraining: Pretraining) -> World:
    """Builds what evaluations step and `out/world` holds: the averaged weights, in a model of their own."""
    held_out = pretraining.held_out
    episodes = held_out if len(held_out) else pretraining.episodes
    count, window = pretraining.config.num_start_states, model.config.window
    starts = pick_starts(pretraining.recorded, episodes, count, window, pretraining.store)
    average = deepcopy(model).eval().requires_grad_(False)
    return World(average, normalizer, starts, codec=codec).to(pretraining.accelerator.device)


def filter_clip(pretraining: Pretraining, normalizer: Normalizer) -> Clip | None:
    """Picks windows that a model's filter is measured on, of episodes that nothing is learnt from, or else of
    those that are; None where none is longer than what is shown.

    Evenly spaced over all that there are, for two dozen drawn at random may miss all in which something is
    held; and in random order, so that the first of them are spread as evenly.
    """
    config, store, apart = pretraining.config, pretraining.store, pretraining.filter_episodes
    if not len(apart):
        return None
    num_steps = min(config.eval_context - 1 + STEPS, int(np.median(store.lengths[apart])))
    all_windows = WindowLoader(store, apart, 1, num_steps, config.seed).windows
    count = min(FILTER_WINDOWS, len(all_windows))
    spread = ((np.arange(count) + 0.5) / count * len(all_windows)).astype(int)
    episodes, frames = np.random.default_rng(config.seed).permutation(all_windows[spread]).T
    windows = {
        name: torch.from_numpy(value).to(pretraining.accelerator.device)
        for name, value in store.windows(episodes, frames, num_steps).items()
    }
    return Clip.from_windows(windows, normalizer)


def held_out_validation(pretraining: Pretraining, world: World) -> HeldOutValidation:
    """Picks the held-out windows that the averaged model imagines at each evaluation."""
    config, store, held_out = pretraining.config, pretraining.recorded, pretraining.held_out
    num_steps = HeldOutValidation.num_steps(config, int(np.median(store.lengths[held_out])))
    share = config.data.motion_share
    loader = WindowLoader(store, held_out, config.eval_windows, num_steps, config.seed, share)
    windows = {name: value.to(pretraining.accelerator.device) for name, value in loader.batch(0).items()}
    return HeldOutValidation(config, windows, world)


def copy_normalizer(pretraining: Pretraining, source: str, target: Path) -> None:
    """Copies the statistics of the world `source`, also for when it is gone.

    ValueError for a world with another prior and for another robot's data; what the episodes that are learnt
    from have outside the world's ranges is said.
    """
    config, recorded = pretraining.config, pretraining.recorded
    world = World.load(source)
    kind = world.prior_config.kind
    if world.config.architecture == config.model.architecture != "copy_last" and kind != config.prior.kind:
        raise ValueError(
            f"{source} has prior={kind} and this training prior={config.prior.kind}: set prior={kind}"
        )
    check_schema(world.schema, recorded.schema, recorded.path)
    stats, store = world.stats, pretraining.store  # with the objects that are found, as the world has them
    rows = rows_of(store.starts, store.lengths, pretraining.episodes)
    for what, values, low, high in (
        ("state", store.state, stats.state_low, stats.state_high),
        ("action", store.action, stats.action_low, stats.action_high),
    ):
        names, values = getattr(store.schema, what), values[rows]
        out = (values.min(0) < low.numpy()) | (values.max(0) > high.numpy())
        if out.any():
            log.warning(
                "%s of %s lies outside the range that %s was trained with; the range stays that one's",
                what, ", ".join(n for n, o in zip(names, out, strict=True) if o), source,
            )  # fmt: skip
    replace_file(target, stats.save)
