"""Training: windows in, a world out. The same call again goes on where the last one stopped."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from tqdm import tqdm

from scd_datasets.preparation.low_dim import Numbers, bound_apart, further_numbers, lots, stored_numbers
from scd_datasets.preparation.open_store import open_store
from scd_datasets.sources.lerobot_reader import LeRobotFolder
from scd_datasets.store.loader import WindowLoader, prefetch
from scd_datasets.store.statistics import compute_stats
from scd_datasets.store.store import WindowStore
from scd_world.model.world_model import BaseModel
from scd_world.optim.schedule import learning_rate
from scd_world.prior.calibrate import fit_doubt
from scd_world.prior.dynamics import Body
from scd_world.prior.fit_dynamics import fit_body
from scd_world.prior.fit_outcome import fit_outcome
from scd_world.prior.fit_renderer import fit_sketch
from scd_world.prior.pretraining import Lesson, Lessons
from scd_world.prior.pretraining_report import FRAMES, Brought, body_brought, outcome_brought, sketch_brought
from scd_world.prior.uncertainty import Doubt
from scd_world.robot_data.clip import Clip
from scd_world.robot_data.normalizer import Stats
from scd_world.training.checkpoint import Checkpoint, Checkpoints
from scd_world.training.config import TrainConfig
from scd_world.training.distributed import make_accelerator
from scd_world.training.export import pick_starts, provenance
from scd_world.training.learner import Learner
from scd_world.training.pretrain import circumstances, recorded_states
from scd_world.training.rng import of_rank, restore_rng, rng_state
from scd_world.training.run_folder import RunFolder, StopRequest, check_continuation
from scd_world.training.run_log import Clock, Guard, Meter, RunLog
from scd_world.training.setup import keep_stats_of
from scd_world.training.validation import Validation
from scd_world.utils.precision import use_bf16
from scd_world.world.build_model import make_model
from scd_world.world.model_card import model_card
from scd_world.world.world import World, start_from

log = logging.getLogger(__name__)
BAR_SECONDS = 0.1 if sys.stderr.isatty() else 30.0  # a log file needs no animation


def train(config: TrainConfig) -> Path:
    """Trains, or goes on training, in `config.out`; gives the folder of the world that it leaves there."""
    called = time.monotonic()  # a time_limit counts the decoding too: it is there for a job's own end
    run = RunFolder(config.out)
    accelerator = make_accelerator(config)
    with run.locked() if accelerator.is_main_process else nullcontext():
        if not run.checkpoints.exists():
            for root in config.body.more:
                LeRobotFolder(root)  # what cannot be read shows now, not after an hour of decoding
        with accelerator.main_process_first():
            store = open_store(config.data, run.path, config.model.patch, run.checkpoints.exists())
        Trainer(config, store, run, accelerator, called).train()
    return run.world


class Trainer:
    """Runs a Learner: batches, log, evaluations, checkpoints, a good end whatever ends it."""

    def __init__(
        self,
        config: TrainConfig,
        store: WindowStore,
        run: RunFolder,
        accelerator: Accelerator,
        called: float | None = None,
    ) -> None:
        """called: when this call began, on the monotonic clock; now, unless given."""
        self.config, self.store, self.run, self.accelerator = config, store, run, accelerator
        self.main, self.began = accelerator.is_main_process, time.monotonic()
        self.called = self.began if called is None else called
        self.episodes, self.held_out = store.split(config.data.holdout)
        self.set_apart()
        self.loader = self.make_loader()
        self.checkpoints = Checkpoints(run.checkpoints, config.keep_checkpoints)
        checkpoint = self.checkpoints.newest()
        self.ancestor: dict[str, Any] | None = None  # provenance of the world that this one started from
        self.lessons = Lessons(run.lessons, circumstances(config, store), writes=self.main)
        self.step, self.seconds, self.progress, self.rate = 0, 0.0, 0.0, 0.0
        torch.manual_seed(config.seed)
        model, self.stats = self.make_model(resuming=checkpoint is not None)
        self.world = self.make_world(model)
        self.validation = self.make_validation() if self.main and len(self.held_out) else None
        self.learner = self.make_learner(model)
        self.guard = Guard(accelerator.device)
        self.meter, self.clock, self.stop = Meter(), Clock(), StopRequest()
        self.prepared = self.seconds_so_far()  # seconds of the budget that body and sketch took
        self.saved_at = self.evaluated_at = -1
        self.measured: dict[str, float] = {}  # by the latest evaluation
        # Processes agree to stop on the host: asking the GPUs would make every step wait for them.
        self.host_group = dist.new_group(backend="gloo") if accelerator.num_processes > 1 else None
        if checkpoint is not None:
            self.resume(checkpoint)

    def set_apart(self) -> None:
        """Some of the training's episodes are not learnt from: they tell how far to trust what was."""
        stored = stored_numbers(self.store, self.episodes)
        share = self.config.body.apart if self.store.schema.state else 0.0
        lot = lots(stored)
        self.bound = bound_apart(lot, share)
        apart = lot < self.bound
        if apart.all():
            self.bound, apart = 0.0, np.zeros_like(apart)
        self.episodes, self.apart = self.episodes[~apart], stored.select(np.flatnonzero(apart))
        self.curve: Tensor | None = None  # of the uncertainty, measured once the training is over

    def make_model(self, resuming: bool) -> tuple[BaseModel, Stats]:
        """The model before its first update; what a checkpoint will bring is left as it comes."""
        stats = self.make_stats(resuming)
        model = make_model(self.config.model, self.store.schema, stats)
        if resuming:  # it needs no other world's weights, and must not fail where that world is gone
            return model, stats
        if self.config.init is not None:
            self.ancestor = start_from(model, self.config.init)
        if self.config.init is None or self.config.init_lessons:
            self.fit_body(model, stats)
            self.fit_sketch(model, stats)
        return model, stats

    def make_stats(self, resuming: bool) -> Stats:
        """Of the training episodes. Or of the world that this one starts from: what its weights learnt, they
        learnt in its units."""
        if resuming and self.run.stats.exists():  # whether or not init= is said once more
            return Stats.load(self.run.stats)
        if self.config.init is None:
            return compute_stats(self.store, self.episodes)
        if resuming:
            raise ValueError(
                f"{self.config.out} did not begin with another world's weights: leave "
                f"init={self.config.init} out to resume it, or choose another out="
            )
        with self.accelerator.main_process_first():
            keep_stats_of(self.config.init, self.store, self.run.stats)
        return Stats.load(self.run.stats)

    def make_learner(self, model: BaseModel) -> Learner:
        return Learner(model, self.stats, self.config, self.accelerator)

    def fit_body(self, model: BaseModel, stats: Stats) -> None:
        """What the states alone can teach, before the first picture. Every process comes to the same."""
        config, seed = self.config.body, self.config.seed
        most = self.config.steps
        config = replace(config, steps=min(config.steps, most), outcome_steps=min(config.outcome_steps, most))
        torch.manual_seed(seed)
        unseen = stored_numbers(self.store, self.held_out)
        recorded, held = (recorded_states(n, stats) for n in (self.numbers(unseen), unseen))
        bf16 = use_bf16(self.config.precision, recorded.state.device)
        if model.body.net is not None and config.steps:
            lesson = self.lesson("body", config.share)
            losses = fit_body(model.body, recorded, config, seed, bf16, lesson)
            self.give(lesson, "body", losses, config.steps)
            self.tell("body", body_brought(model.body, held))
            lesson = self.lesson("outcome", config.outcome_share)
            losses = fit_outcome(model.body, recorded, config, seed, lesson)
            self.give(lesson, "outcome", losses, config.outcome_steps)
            self.tell("outcome", outcome_brought(model.body, held))
        if not self.calibrate(model.doubt, model.body, stats) and len(recorded.state):
            fit_doubt(model.doubt, model.body, recorded, seed)
            self.say("uncertainty: measured on what was learnt; on other recordings it will say too little")

    def numbers(self, unseen: Numbers) -> Numbers:
        """Of the training episodes, and of those recorded beside them without pictures, but for the `unseen`
        and those that are set apart."""
        numbers = stored_numbers(self.store, self.episodes)
        for root in self.config.body.more:
            more = further_numbers(root, self.store.schema, unseen, self.config.data.skip_damaged)
            apart = lots(more) < self.bound
            numbers = numbers.and_(more.select(np.flatnonzero(~apart)))
            self.apart = self.apart.and_(more.select(np.flatnonzero(apart)))
        return numbers

    def calibrate(self, doubt: Doubt, body: Body, stats: Stats) -> bool:
        """Measures how far the body strays where it has not learnt; False: there was too little for that."""
        if not len(self.apart.lengths):
            return False
        body_device = next(body.buffers()).device
        recorded = recorded_states(self.apart, stats.to("cpu"))
        steps = fit_doubt(doubt, body, recorded.to(body_device), self.config.seed)
        if steps:
            count = len(self.apart.lengths)
            self.say(
                f"uncertainty: measured on {count} episodes that are not learnt from, {steps} steps each"
            )
            if self.ancestor is not None and not self.ancestor.get("apart"):
                log.warning("the world before it has learnt from these: recipes/calibrate.py takes others")
        return bool(steps)

    def fit_sketch(self, model: BaseModel, stats: Stats) -> None:
        """What single frames can teach, on the device that they are then drawn on."""
        config = replace(self.config.sketch, steps=min(self.config.sketch.steps, self.config.steps))
        if model.sketch is None or not config.steps:
            return
        torch.manual_seed(self.config.seed)
        share = self.config.data.motion_share
        loader = WindowLoader(self.store, self.episodes, config.batch_size, 1, self.config.seed, share)
        device = self.accelerator.device
        bf16 = use_bf16(self.config.precision, device)
        sketch = model.sketch.to(device).requires_grad_(True)
        lesson = self.lesson("sketch", config.share)
        losses = fit_sketch(sketch, loader, stats.to(device), config, bf16, lesson)
        self.give(lesson, "sketch", losses, config.steps)
        sketch.requires_grad_(False)
        if len(self.held_out):
            loader = WindowLoader(self.store, self.held_out, FRAMES, 1, self.config.seed)
            windows = {name: value.to(device) for name, value in loader.batch(0).items()}
            clip = Clip.from_windows(windows, stats.to(device))
            self.tell("sketch", sketch_brought(sketch, clip.state[:, 0], clip.obs[:, 0]))

    def lesson(self, name: str, share: float) -> Lesson:
        """One before the first window, which may take this share of the time that there is."""
        limits = [limit for limit in (self.config.time_limit, self.config.time_budget) if limit is not None]
        return self.lessons.lesson(name, share * min(limits, default=math.inf))

    def give(self, lesson: Lesson, name: str, losses: Generator[Tensor], steps: int) -> None:
        self.accelerator.wait_for_everyone()  # none may find half of what the first one is about to keep
        with closing(losses):
            next(losses, None)  # from here on it is known what an earlier start gave
            if lesson.before:
                self.say(f"{name}: {lesson.before:.0f} seconds of this lesson were given before")
            bar = tqdm(
                losses, name, steps, unit="step", initial=lesson.update, disable=not self.main,
                mininterval=BAR_SECONDS,
            )  # fmt: skip
            for loss in bar:
                if lesson.update % 100 == 0:
                    bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
        self.seconds += lesson.before

    def tell(self, name: str, brought: Sequence[Brought]) -> None:
        """What a lesson brought on held-out episodes, if there are any."""
        if not self.main:
            return
        for figure in brought:
            if figure.failed:
                log.warning("%s learnt nothing of use: held-out episodes, %s", name, figure)
            else:
                log.info("%s, held-out episodes: %s", name, figure)

    def make_loader(self) -> WindowLoader:
        return WindowLoader(
            self.store,
            self.episodes,
            self.config.batch_size,
            self.config.clip_steps,
            self.config.seed,
            self.config.data.motion_share,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
        )

    def make_world(self, model: BaseModel) -> World:
        """What evaluations step and `out/world` holds: the averaged weights, in a model of their own."""
        episodes = self.held_out if len(self.held_out) else self.episodes
        starts = pick_starts(self.store, episodes, self.config.world_starts, model.config.window)
        average = deepcopy(model).eval().requires_grad_(False)
        return World(average, self.stats, starts).to(self.accelerator.device)

    def make_validation(self) -> Validation:
        config, longest = self.config, int(np.median(self.store.lengths[self.held_out]))
        num_steps = Validation.num_steps(config, longest)
        loader = WindowLoader(
            self.store,
            self.held_out,
            config.eval_windows,
            num_steps,
            config.seed,
            config.data.motion_share,
        )
        windows = {name: value.to(self.accelerator.device) for name, value in loader.batch(0).items()}
        return Validation(config, Clip.from_windows(windows, self.world.stats), self.world.stats)

    # ---- the loop --------------------------------------------------------------------------------

    def train(self) -> None:
        config = self.config
        with self.stop, self.writing(), self.bar() as bar:
            with closing(prefetch(self.loader, self.step)) as batches:
                self.clock.restart()
                while not self.finished and not self.should_stop():
                    with self.clock.waiting():
                        windows = next(batches)
                    self.rate = learning_rate(config.optimiser, self.progress)
                    recorded = self.progress < config.own_history_from
                    values, bad = self.learner.update(windows, self.step, self.rate, recorded)
                    self.guard.see(bad, self.step)
                    self.meter.add(values, bad)
                    self.step += 1
                    bar.update()
                    # Reading the guard makes a GPU wait, so there only beside a log line.
                    if self.accelerator.device.type == "cpu" or self.due(config.log_every):
                        self.check_finite()
                    if self.due(config.log_every):
                        self.write_log(bar)
                    if self.due(config.eval_every):
                        self.evaluate()
                    if self.due(config.checkpoint_every):
                        self.save()
            if self.finished and self.config.model.state_weight:  # the body has learnt on beside the pictures
                self.load_average()
                average = self.world.model
                if self.calibrate(average.doubt, average.body, self.world.stats):
                    self.curve, self.saved_at = average.doubt.curve.clone(), -1
            if self.finished and self.evaluated_at != self.step:
                self.evaluate()
            if self.saved_at != self.step:
                self.save()
        reason = self.stop.name or ("finished" if self.finished else "time_limit")
        self.say(f"{reason} at step {self.step} of {config.steps}; the world is in {self.run.world}")

    @property
    def finished(self) -> bool:
        return self.step >= self.config.steps or self.progress >= 1

    def due(self, every: int) -> bool:
        return self.step % every == 0

    def should_stop(self) -> bool:
        """Looks at clock and signals; sets `progress`, the share of the training after the next update.

        Every process gets the same answers, or one would wait for ever for another's gradients.
        """
        limit, budget = self.config.time_limit, self.config.time_budget
        stop = bool(self.stop) or (limit is not None and time.monotonic() - self.called > limit)
        progress = (self.step + 1) / self.config.steps
        if budget is not None:
            progress = max(progress, self.spent(budget))
        answers = torch.tensor([stop, min(progress, 1.0)], dtype=torch.float64)
        if self.host_group is not None:
            dist.all_reduce(answers, dist.ReduceOp.MAX, group=self.host_group)
        stop, self.progress = answers.tolist()
        return bool(stop)

    @contextmanager
    def writing(self) -> Iterator[None]:
        if not self.main:
            yield
            return
        self.run.write_config(self.config)
        self.run_log = RunLog(self.run.log, self.run.tensorboard, self.step)
        with closing(self.run_log):
            yield

    def bar(self) -> tqdm:
        return tqdm(
            total=self.config.steps,
            initial=self.step,
            unit="step",
            disable=not self.main,
            mininterval=BAR_SECONDS,
        )

    def write_log(self, bar: tqdm) -> None:
        names, sums = self.meter.take()
        means = dict(zip(names, self.accelerator.reduce(sums, "mean").tolist(), strict=True))
        updates = max(means.pop("updates"), 1)
        values = {name: total / updates for name, total in means.items()}
        config = self.config
        values |= self.clock.rates(frames_per_step=config.batch_size * config.clip_steps)
        values |= {"lr": self.rate, "skipped": int(self.guard.skipped), "seconds": self.seconds_so_far()}
        if self.main:
            self.run_log.write(self.step, values)
            bar.total = max(self.step, round(self.step / self.progress))  # a time budget moves it
            bar.set_postfix(loss=f"{values['loss']:.4f}", waiting=f"{values['waiting']:.0%}", refresh=False)
        self.clock.restart()

    def check_finite(self) -> None:
        """Raises after three skipped updates in a row, leaving a file that says which windows they had."""
        step = int(self.guard.fatal)
        if step < 0:
            return
        steps = range(step - self.guard.LIMIT + 1, step + 1)
        dump = self.run.path / f"not_finite_{step:08d}.json"
        if self.main:
            windows = {i: self.loader.addresses(i).tolist() for i in steps}
            content = {"config": asdict(self.config), "skipped": int(self.guard.skipped), "windows": windows}
            dump.write_text(json.dumps(content, indent=1), encoding="utf-8")
        raise FloatingPointError(
            f"the gradients of the updates {steps[0]} to {step} were not finite; they were skipped, and the "
            f"last checkpoint is untouched. {dump} has their windows' (episode, frame): look at them, "
            "or resume with a lower optimiser.lr or precision=fp32"
        )

    # ---- held-out episodes -----------------------------------------------------------------------

    def evaluate(self) -> None:
        """With the averaged weights, in the first process; the others wait with their next gradients."""
        self.load_average()
        self.evaluated_at = self.step
        if self.validation is not None:
            values = self.validation.measure(self.world.model, stop=lambda: bool(self.stop))
            if values is not None:
                self.measured = values
                self.run_log.write(self.step, values)
        self.clock.restart()

    def load_average(self) -> None:
        self.world.model.load_state_dict(self.learner.ema.weights())
        if self.curve is not None:
            self.world.model.doubt.curve.copy_(self.curve)

    # ---- checkpoints -----------------------------------------------------------------------------

    def seconds_so_far(self) -> float:
        return self.seconds + time.monotonic() - self.began

    def spent(self, budget: float) -> float:
        """The share of the budget that the updates have used: the learning rate's course is theirs alone."""
        return (self.seconds_so_far() - self.prepared) / max(budget - self.prepared, 1.0)

    def save(self) -> None:
        """A checkpoint, and the world as it is now."""
        state = self.learner.state()
        own = of_rank(rng_state(), self.accelerator.process_index)
        rng = {name: value for part in gather_object([own]) for name, value in part.items()}
        self.load_average()
        self.saved_at = self.step
        if not self.main:
            return
        training = {
            "step": self.step,
            "seconds": self.seconds_so_far(),
            "prepared": self.prepared,
            "skipped": int(self.guard.skipped),
            "fingerprint": self.store.fingerprint,
            "config": asdict(self.config),
            "measured": self.measured,
            "ancestor": self.ancestor,
        }
        self.checkpoints.save(Checkpoint(**state, rng=rng, training=training))
        self.lessons.forget()
        self.save_world()

    def made(self) -> dict[str, Any]:
        """The world's provenance."""
        return provenance(
            self.config,
            self.store,
            self.held_out,
            self.step,
            self.seconds_so_far(),
            self.measured,
            self.ancestor,
        )

    def save_world(self) -> None:
        made = self.made()
        self.world.provenance, self.world.card = made, model_card(self.store.schema, made)
        self.world.save(self.run.world)

    def resume(self, checkpoint: Checkpoint) -> None:
        training = checkpoint.training
        self.ancestor = training["ancestor"]
        changed = check_continuation(training, self.config, self.store.fingerprint, self.run.path)
        self.learner.load(checkpoint.weights, checkpoint.ema, checkpoint.optimiser)
        restore_rng(checkpoint.rng, self.accelerator.process_index)
        self.step, self.seconds, self.measured = training["step"], training["seconds"], training["measured"]
        self.prepared = training["prepared"]
        if self.config.time_budget is not None:
            self.progress = self.spent(self.config.time_budget)
        self.guard = Guard(self.accelerator.device, training["skipped"])
        self.say(f"resuming at step {self.step}" + "".join(f"\n  changed: {line}" for line in changed))

    def say(self, message: str) -> None:
        if self.main:
            log.info(message)
