"""What is learnt before the first window: the state prior, from recorded state alone, stage after stage.

Dynamics, then the outcome of a state, then which cameras ride, then the renderer and dense motion; how far
the dynamics may be off is measured on episodes from which nothing is learnt. With prior=none there is nothing
to do.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor
from tqdm import tqdm

from scd_datasets.preparation.low_dim import (
    LowDimData,
    calibration_threshold,
    dataset_low_dim,
    split_hash,
    store_low_dim,
)
from scd_datasets.store.loader import WindowLoader, prefetch
from scd_datasets.store.statistics import transitions
from scd_datasets.store.store import WindowStore
from scd_world.model.prior import StatePrior
from scd_world.optim.pretraining import PretrainStage, PretrainStages
from scd_world.prior.fit_dynamics import fit_dynamics
from scd_world.prior.fit_motion import fit_motion
from scd_world.prior.fit_outcome import fit_outcome
from scd_world.prior.fit_renderer import fit_renderer
from scd_world.prior.pretraining_report import (
    FRAMES,
    StageResult,
    dynamics_result,
    motion_result,
    outcome_result,
    renderer_result,
)
from scd_world.prior.renderer import StateRenderer
from scd_world.prior.state_prior import PretrainedStatePrior
from scd_world.prior.uncertainty import calibrate_uncertainty
from scd_world.reporting.tables import significant
from scd_world.robot_data.clip import Clip
from scd_world.robot_data.dropped_frames import steady_stretches
from scd_world.robot_data.normalizer import Normalizer
from scd_world.robot_data.trajectories import StateTrajectories
from scd_world.scene.fit_cameras import (
    FARTHEST,
    HEIGHT_UPDATES,
    NEARER,
    POSE_UPDATES,
    Sight,
    fit_heights,
    fit_poses,
    keep_riding,
)
from scd_world.scene.frames import FramesToDraw
from scd_world.training.config import TrainConfig
from scd_world.utils.interruption import Interrupted, StopSignal
from scd_world.utils.precision import use_bf16

log = logging.getLogger(__name__)
JOINT_STEPS = 1500  # of networks that see one joint each: more teach no more (docs/cameras.md 20)
JUDGED_BATCHES = 4  # of pairs of frames by which it is judged which cameras ride
CAMERAS_SHARE, HEIGHTS_SHARE = 0.1, 0.3  # of the renderer's time, where there is a limit
BAR_SECONDS = 0.1 if sys.stderr.isatty() else 30.0  # a log file needs no animation


class Pretraining:
    """The stages of one run, and which episodes they learn from."""

    def __init__(
        self, config: TrainConfig, store: WindowStore, folder: Path, accelerator: Accelerator
    ) -> None:
        """folder: where unfinished stages are kept until the first checkpoint."""
        self.config, self.recorded, self.accelerator = config, store, accelerator
        self.store = store  # what the model sees: a learnt codec's latents, once there is one
        self.main = accelerator.is_main_process
        self.stages = PretrainStages(folder, stage_dependencies(config, store), writes=self.main)
        self.earlier_seconds = 0.0  # that earlier calls of this run gave to the stages
        episodes, self.held_out = store.split(config.data.holdout)
        self.episodes, self.apart, self.threshold = self.split_calibration(episodes)
        if count := int(store.dropped.sum()):
            self.log_main(
                f"dropped frames: {count} of {len(store.dropped):,} steps lead twice as far as their command "
                "says; nothing is learned from them"
            )

    def split_calibration(self, episodes: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Sets some of the training's episodes apart: nothing learns from them, so they tell how far to trust
        what was learnt. Gives the others, these, and the hash below which an episode is set apart."""
        stored = store_low_dim(self.store, episodes)
        told = self.store.schema.state or self.config.codec.objects
        wanted = self.config.prior.kind == "state" and told
        hashes = split_hash(stored)
        threshold = calibration_threshold(hashes, self.config.prior.calibration_share if wanted else 0.0)
        apart = hashes < threshold
        if apart.all():
            threshold, apart = 0.0, np.zeros_like(apart)
        return episodes[~apart], episodes[apart], threshold

    @cached_property
    def filter_episodes(self) -> np.ndarray:
        """The episodes that a model's filter is measured on: those set apart, or else those learnt from, if
        they are longer than what is shown."""
        for episodes in (self.apart, self.episodes):
            long = episodes[self.store.lengths[episodes] > self.config.eval_context]
            if len(long):
                return long
        return self.episodes[:0]

    @cached_property
    def calibration(self) -> LowDimData:
        """The data of the episodes that are set apart, as the model sees them, also of those without
        images."""
        data = store_low_dim(self.store, self.apart)
        for more, apart in self.without_images:
            data = data.concat(more.select(np.flatnonzero(apart)))
        return data

    @cached_property
    def without_images(self) -> list[tuple[LowDimData, np.ndarray]]:
        """Further episodes of the robot (`prior.extra_datasets`), but for those that are held out here; and
        which of them are set apart."""
        unseen, recorded, found = store_low_dim(self.store, self.held_out), self.config.data, []
        for root in self.config.prior.extra_datasets:
            more = dataset_low_dim(
                root,
                self.store.schema,
                unseen,
                skip_bad=recorded.skip_damaged,
                keys=recorded.low_dim_keys,
                in_order=recorded.clock == "index",
                stride=self.recorded.stride,
            )
            found.append((more, split_hash(more) < self.threshold))
        return found

    def fit_closed_form(self, prior: StatePrior, normalizer: Normalizer) -> None:
        """Fits what needs seconds: at every start, so that a resumed run begins as the first one did."""
        if isinstance(prior, PretrainedStatePrior):
            state = torch.from_numpy(store_low_dim(self.store, self.episodes).state)
            recorded = transitions(self.store, self.episodes, normalizer)
            prior.fit_closed_form(recorded, normalizer.encode_state(state))
            if count := len(normalizer.joints):
                self.log_main(
                    f"joints: {count} of {state.shape[1]} numbers of the state follow a command of their "
                    "own, and no other one moves them"
                )

    def run(self, prior: StatePrior, normalizer: Normalizer, parent: dict[str, Any] | None) -> None:
        """Runs all stages on a prior that is still on the CPU. Every process comes to the same.

        parent: provenance of the world that the weights come from."""
        if isinstance(prior, PretrainedStatePrior):
            self.pretrain_dynamics(prior, normalizer, parent)
            self.pretrain_renderer(prior, normalizer)
            self.pretrain_motion(prior, normalizer)

    def pretrain_dynamics(
        self, prior: PretrainedStatePrior, normalizer: Normalizer, parent: dict[str, Any] | None
    ) -> None:
        """Learns where states lead and what they bring, before the first image."""
        config, seed, most = self.config.prior, self.config.seed, self.config.steps
        enough = JOINT_STEPS if prior.dynamics.residual_net is None else config.dynamics.steps
        dynamics = replace(config.dynamics, steps=min(config.dynamics.steps, enough, most))
        outcome = replace(config.outcome, steps=min(config.outcome.steps, most))
        torch.manual_seed(seed)
        unseen = store_low_dim(self.store, self.held_out)
        recorded, held = (to_trajectories(n, normalizer) for n in (self.low_dim_data(), unseen))
        bf16 = use_bf16(self.config.precision, recorded.state.device)
        if prior.dynamics.trained is not None and dynamics.steps:
            stage = self.stage("dynamics", dynamics.time_share)
            losses = fit_dynamics(prior.dynamics, recorded, dynamics, seed, bf16, stage)
            self.run_stage(stage, "dynamics", losses, dynamics.steps)
            prior.freeze_pretrained()
            self.report_stage("dynamics", dynamics_result(prior.dynamics, held))
        told = self.store.schema.reward or self.store.schema.success
        if prior.dynamics.outcome_net is not None and outcome.steps and told:
            stage = self.stage("outcome", outcome.time_share)
            losses = fit_outcome(prior.dynamics, recorded, outcome, seed, stage)
            self.run_stage(stage, "outcome", losses, outcome.steps)
            self.report_stage("outcome", outcome_result(prior.dynamics, held))
        if not self.calibrate(prior, normalizer, parent) and len(recorded.state):
            calibrate_uncertainty(prior.uncertainty, prior.dynamics, recorded, seed)
            self.log_main(
                "uncertainty: measured on episodes that were learnt from; on others it will be too small"
            )

    def low_dim_data(self) -> LowDimData:
        """Gives the data of the training episodes, and of those recorded beside them without images, but for
        those that are held out and those of calibration."""
        data = store_low_dim(self.store, self.episodes)
        for more, apart in self.without_images:
            data = data.concat(more.select(np.flatnonzero(~apart)))
        return data

    def calibrate(
        self, prior: PretrainedStatePrior, normalizer: Normalizer, parent: dict[str, Any] | None
    ) -> bool:
        """Measures how far the dynamics are off where nothing was learnt; False: there was too little
        data."""
        if not len(self.calibration.lengths):
            return False
        device = prior.dynamics.linear.weight.device
        recorded = to_trajectories(self.calibration, normalizer.to("cpu")).to(device)
        steps = calibrate_uncertainty(prior.uncertainty, prior.dynamics, recorded, self.config.seed)
        if steps:
            count = len(self.calibration.lengths)
            self.log_main(
                f"uncertainty: measured on {count} episodes that are not learnt from, {steps} steps each"
            )
            if parent is not None and not parent.get("calibration_share"):
                log.warning("the world before it learnt from these; recipes/pusht/calibrate.py takes others")
        return bool(steps)

    def pretrain_renderer(self, prior: PretrainedStatePrior, normalizer: Normalizer) -> None:
        """Learns to draw a state from single frames, on the device that they are then drawn on."""
        config = self.config.prior.renderer
        config = replace(config, steps=min(config.steps, self.config.steps))
        if prior.renderer is None or not config.steps:
            return
        torch.manual_seed(self.config.seed)
        share, seed = self.config.data.motion_share, self.config.seed
        renderer = prior.renderer
        sees = renderer.scene_encoder is not None
        loader = WindowLoader(self.store, self.episodes, config.batch_size, 1, seed, share, anchors=sees)
        device = self.accelerator.device
        bf16, units = use_bf16(self.config.precision, device), normalizer.to(device)
        renderer = renderer.to(device).requires_grad_(True)
        rest = 1 - self.find_riding_cameras(renderer, units)
        stage = self.stage("renderer", rest * config.time_share)
        losses = fit_renderer(
            renderer, lambda first: self.drawn(loader, first, units, device), seed, config, bf16, stage
        )
        self.run_stage(stage, "renderer", losses, config.steps)
        renderer.requires_grad_(False)
        if len(self.held_out):
            held = WindowLoader(self.store, self.held_out, FRAMES, 1, seed, anchors=sees).batch(0)
            self.report_stage("renderer", renderer_result(renderer, frames_to_draw(held, units, device)))

    def pretrain_motion(self, prior: PretrainedStatePrior, normalizer: Normalizer) -> None:
        """Learns where what was shown has gone when another state is drawn."""
        config, seed, device = self.config.prior.motion, self.config.seed, self.accelerator.device
        config = replace(config, steps=min(config.steps, self.config.steps))
        if prior.renderer is None or prior.renderer.motion is None or not config.steps:
            return
        renderer, units = prior.renderer.to(device), normalizer.to(device)
        stage = self.stage("motion", config.time_share, motion=asdict(config) | {"time_share": None})

        def pairs(episodes: np.ndarray, count: int) -> WindowLoader:
            share = self.config.data.motion_share
            return WindowLoader(
                self.store, episodes, count, 1, seed, share, anchors=True, anchor_distance=lambda _: FARTHEST
            )

        loader, bf16 = pairs(self.episodes, config.batch_size), use_bf16(self.config.precision, device)
        losses = fit_motion(
            renderer, lambda first: self.drawn(loader, first, units, device), config, bf16, stage
        )
        self.run_stage(stage, "motion", losses, config.steps)
        renderer.requires_grad_(False)
        if len(self.held_out):
            held = pairs(self.held_out, FRAMES).batch(0)
            self.report_stage("motion", motion_result(renderer, frames_to_draw(held, units, device)))

    def find_riding_cameras(self, renderer: StateRenderer, units: Normalizer) -> float:
        """Finds which cameras ride on the robot, how the state moves them, and how high stands what they see,
        before anything is drawn; judged on episodes set apart if there are. Gives what share of the
        renderer's time it may take."""
        if renderer.heights is None or renderer.cameras is None:
            return 0.0
        config, device = self.config.prior.renderer, renderer.background_cells.device
        others = self.apart if len(self.apart) else self.episodes
        sight = Sight(renderer.cameras, renderer.heights, renderer.background)

        def pairs(episodes: np.ndarray, count: int, seed: int, apart: Callable[[int], int]) -> WindowLoader:
            return WindowLoader(self.store, episodes, count, 1, seed, anchors=True, anchor_distance=apart)

        def frames(first: int, apart: Callable[[int], int]) -> Generator[FramesToDraw]:
            loader = pairs(self.episodes, config.batch_size, self.config.seed, apart)
            return self.drawn(loader, first, units, device)

        steps = min(POSE_UPDATES, self.config.steps)
        stage = self.stage("cameras", CAMERAS_SHARE * config.time_share)
        self.run_stage(stage, "cameras", fit_poses(sight, frames, steps, stage), steps)
        judged = (pairs(others, FRAMES, i, lambda _: FARTHEST).batch(0) for i in range(JUDGED_BATCHES))
        apart = [frames_to_draw(windows, units, device) for windows in judged]
        nearer = keep_riding(sight, apart, broadcast)  # each process learnt for as long as its clock said
        for camera, ratio in zip(self.store.schema.cameras, nearer.tolist(), strict=True):
            rides = "rides" if ratio < NEARER else "does not ride"
            self.log_main(
                f"renderer: camera {camera} {rides} on the robot (seen from where the state puts it, the "
                f"error of a frame is {ratio:.2f} of that of the frame as it was)"
            )
        if not renderer.carries:
            return CAMERAS_SHARE
        steps = min(HEIGHT_UPDATES, self.config.steps)
        stage = self.stage("heights", HEIGHTS_SHARE * config.time_share)
        self.run_stage(stage, "heights", fit_heights(sight, frames, steps, stage), steps)
        lag = renderer.cameras.lag.item()
        what = "older" if lag > 0 else "newer"
        self.log_main(f"renderer: pictures are {abs(lag):.1f} of a step {what} than states")
        return CAMERAS_SHARE + HEIGHTS_SHARE

    @staticmethod
    def drawn(
        loader: WindowLoader, first: int, units: Normalizer, device: torch.device
    ) -> Generator[FramesToDraw]:
        """Yields a loader's batches from number `first` on, without end."""
        with closing(prefetch(loader, first)) as batches:
            for windows in batches:
                yield frames_to_draw(windows, units, device)

    # ---- one stage -------------------------------------------------------------------------------------

    def stage(self, name: str, share: float, **depends_on: Any) -> PretrainStage:
        """Gives a stage that may take this share of the time that there is. depends_on: what it depends on
        and no stage before it."""
        return self.stages.stage(name, self.seconds(share), **depends_on)

    def seconds(self, share: float) -> float:
        """Gives this share of the time that there is; without end where none was given."""
        limits = [limit for limit in (self.config.time_limit, self.config.time_budget) if limit is not None]
        return share * min(limits, default=math.inf)

    def run_stage(self, stage: PretrainStage, name: str, losses: Generator[Tensor], steps: int) -> None:
        self.accelerator.wait_for_everyone()  # none may find half of what the first one is about to keep
        with closing(losses):
            next(losses, None)  # from here on it is known what an earlier start gave
            if stage.before:
                self.log_main(f"{name}: {stage.before:.0f} seconds of this stage were given before")
            bar = tqdm(
                losses, name, steps, unit="step", initial=stage.update, disable=not self.main,
                mininterval=BAR_SECONDS,
            )  # fmt: skip
            for loss in self.until_stopped(stage, name, bar):
                if stage.update % 100 == 0:
                    bar.set_postfix(loss=significant(loss.item()), refresh=False)
        self.earlier_seconds += stage.before

    def until_stopped(self, stage: PretrainStage, name: str, losses: Iterable[Tensor]) -> Generator[Tensor]:
        """Yields until a signal comes; then what there is of the stage is kept, and Interrupted raised."""
        with StopSignal() as stop:
            for loss in losses:
                if stop and stage.progress < 1:  # a stage that has made its last update ends by itself
                    break
                yield loss
        if stop.number is not None:
            stage.save()
            raise Interrupted(
                f"{stop.name} while pretraining: {name} is kept up to update {stage.update}, and the same "
                "command goes on from there",
                stop.number,
            )

    def report_stage(self, name: str, results: Sequence[StageResult]) -> None:
        """Logs what a stage brought on held-out episodes, if there are any."""
        if not self.main:
            return
        for result in results:
            if result.failed:
                log.warning("%s learnt nothing of use: held-out episodes, %s", name, result)
            else:
                log.info("%s, held-out episodes: %s", name, result)

    def log_main(self, message: str) -> None:
        if self.main:
            log.info(message)


def stage_dependencies(config: TrainConfig, store: WindowStore) -> dict[str, Any]:
    """Gives what the stages' results depend on; how long they may take aside."""
    of = ("codec", "model", "prior", "data", "steps", "seed", "precision", "init")
    depends = {name: value for name, value in asdict(config).items() if name in of}
    for name in ("motion", "motion_channels"):  # which come last, and whose shapes are compared
        del depends["prior"][name]
    for name in ("dynamics", "outcome", "renderer"):
        del depends["prior"][name]["time_share"]
    return depends | {"store": store.fingerprint}


def frames_to_draw(windows: dict[str, Tensor], normalizer: Normalizer, device: torch.device) -> FramesToDraw:
    """Gives each window's first frame, and its anchor, on the device."""
    clip = Clip.from_windows({name: value.to(device) for name, value in windows.items()}, normalizer)
    return FramesToDraw(clip.obs[:, 0], clip.state[:, 0], clip.prev, clip.anchor, clip.anchor_state)


def to_trajectories(data: LowDimData, normalizer: Normalizer) -> StateTrajectories:
    """Gives the same in model units; where the recorder dropped a frame one episode ends, another begins."""
    starts, lengths = steady_stretches(data.dropped, data.starts, data.lengths)
    return StateTrajectories(
        state=normalizer.encode_state(torch.from_numpy(data.state)),
        prev=normalizer.encode_prev(torch.from_numpy(data.prev)),
        action=normalizer.encode_action(torch.from_numpy(data.action)),
        reward=normalizer.encode_reward(torch.from_numpy(data.reward)),
        success=torch.from_numpy(data.success).float(),
        starts=torch.from_numpy(starts),
        lengths=torch.from_numpy(lengths),
    )
