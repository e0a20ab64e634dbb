"""Training: windows in, a world out. The same call again goes on where the last one stopped."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from tqdm import tqdm

from scd_datasets.preparation.open_store import open_store
from scd_datasets.store.loader import prefetch
from scd_datasets.store.store import WindowStore
from scd_world.model.world_model import WorldModel
from scd_world.optim.schedule import learning_rate
from scd_world.prior.state_prior import PretrainedStatePrior
from scd_world.reporting.tables import significant
from scd_world.robot_data.normalizer import Normalizer
from scd_world.training.check_settings import check_before_decoding, check_episodes
from scd_world.training.checkpoint import Checkpoint, Checkpoints
from scd_world.training.config import TrainConfig
from scd_world.training.distributed import make_accelerator
from scd_world.training.export import provenance
from scd_world.training.latents import TrainedCodec, codec_of, latent_store
from scd_world.training.learner import Learner
from scd_world.training.pretrain import BAR_SECONDS, Pretraining
from scd_world.training.rng import of_rank, restore_rng, rng_state
from scd_world.training.run_folder import RunFolder, check_continuation
from scd_world.training.run_log import Meter, NonFiniteGuard, RunLog, Throughput
from scd_world.training.setup import (
    filter_clip,
    first_model,
    held_out_validation,
    training_windows,
    world_of,
)
from scd_world.training.validation import copies, past_its_best
from scd_world.utils.interruption import Interrupted, StopSignal
from scd_world.world.fit_filter import fit_filter, fit_first_reach
from scd_world.world.model_card import model_card

log = logging.getLogger(__name__)
FILTER_SHARE, FILTER_SECONDS = 0.2, 480.0  # of time_limit and time_budget, at most; and seconds


def train(config: TrainConfig) -> Path:
    """Trains, or goes on training, in `config.out`; gives the folder of the world that it leaves there.

    Interrupted, with a checkpoint and a world left all the same, where SIGINT or SIGTERM ended it.
    """
    called = time.monotonic()  # a time_limit counts the decoding too: it is there for a job's own end
    run = RunFolder(config.out)
    accelerator = make_accelerator(config)
    if accelerator.is_main_process:
        run.claim("scd-train")
    with run.locked() if accelerator.is_main_process else nullcontext():
        with accelerator.main_process_first():
            if not run.checkpoints.exists():
                check_before_decoding(config, accelerator.num_processes)
            patch, cell = config.model.patch, config.codec.shrink
            store = open_store(config.data, run.path, patch, run.checkpoints.exists(), cell=cell)
        Trainer(config, store, run, accelerator, called).train()
    return run.world


class Trainer:
    """Runs a Learner: batches, log, evaluations, checkpoints, a good end whatever ends it."""

    fewest_updates = 300  # with fewer a world that began at nothing draws badly

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
        self.main, self.started = accelerator.is_main_process, time.monotonic()
        self.call_started = self.started if called is None else called
        self.pretraining = Pretraining(config, store, run.pretraining, accelerator)
        self.held_out = self.pretraining.held_out
        self.checkpoints = Checkpoints(run.checkpoints, config.keep_checkpoints)
        checkpoint = self.checkpoints.newest()
        check_episodes(config, store.lengths[self.pretraining.episodes], store.lengths[self.held_out])
        self.codec = self.make_codec(resuming=checkpoint is not None)
        with accelerator.main_process_first():
            episodes, device = self.pretraining.episodes, accelerator.device
            self.pretraining.store = latent_store(store, self.codec.codec, run.latents, device, episodes)
        self.loader = training_windows(self.pretraining)
        self.parent: dict[str, Any] | None = None  # provenance of the world that this one started from
        self.step, self.seconds, self.rate = 0, 0.0, 0.0
        self.progress, self.spent = 0.0, 0.0  # shares of the training, and of its time_budget alone
        torch.manual_seed(config.seed)
        model, self.stats = self.make_model(None if checkpoint is None else checkpoint.weights)
        self.world = world_of(model, self.stats, self.codec.codec, self.pretraining)
        validates = self.main and len(self.held_out) > 0
        self.validation = held_out_validation(self.pretraining, self.world) if validates else None
        self.learner = self.make_learner(model)
        self.guard = NonFiniteGuard(accelerator.device)
        self.meter, self.clock, self.stop = Meter(), Throughput(), StopSignal()
        self.pretrain_seconds = self.seconds_so_far()  # seconds of the budget that the prior took
        self.saved_at = self.evaluated_at = -1
        self.measured = False  # whether what belongs to a training's end is measured, and in the checkpoint
        self.measures_again = False  # whether an earlier call measured another world of the same weights
        self.last_eval: dict[str, float] = {}  # by the latest evaluation
        # Processes agree to stop on the host: asking the GPUs would make every step wait for them.
        self.host_group = dist.new_group(backend="gloo") if accelerator.num_processes > 1 else None
        if checkpoint is not None:
            self.resume(checkpoint)
        elif model.measured_share and not model.tells_image_error:  # of no world that was measured
            clip = filter_clip(self.pretraining, self.stats)
            if clip is not None:
                fit_first_reach(model, clip, config.eval_context)
        self.first_step = self.step  # of this call

    def make_model(self, saved: Mapping[str, Tensor] | None) -> tuple[WorldModel, Normalizer]:
        """Builds the model before its first update; what a checkpoint will bring is left as it comes. saved:
        the weights in it, if there is one."""
        model, normalizer, self.parent = first_model(
            self.config, self.pretraining, self.run, saved, self.codec.codec.config
        )
        self.seconds += self.pretraining.earlier_seconds
        return model, normalizer

    def make_codec(self, resuming: bool) -> TrainedCodec:
        """Gives what stands between recorded frames and the model's, learnt where the settings say so."""
        return codec_of(self.pretraining, self.run, resuming)

    def gives_the_same(self, earlier: Mapping[str, Any]) -> bool:
        """Says whether of the same weights an earlier call, with these settings, gave the same world."""
        return True

    def make_learner(self, model: WorldModel) -> Learner:
        return Learner(model, self.stats, self.config, self.accelerator)

    # ---- the loop --------------------------------------------------------------------------------

    def train(self) -> None:
        config = self.config
        if config.compile and not self.finished:
            again = (
                f", and so is the first on own rollouts, after {config.self_rollout_start:.0%} of the updates"
            )
            self.log_main(
                "compile: the first update is compiled, which takes minutes"
                + (again if config.model.self_rollout_share and config.self_rollout_start else "")
            )
        with self.stop, self.writing(), self.bar() as bar:
            with closing(prefetch(self.loader, self.step)) as batches:
                self.clock.restart()
                while not self.finished and not self.should_stop():
                    with self.clock.waiting():
                        windows = next(batches)
                    self.rate = learning_rate(config.optimizer, self.progress)
                    recorded = self.progress < config.self_rollout_start
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
            if self.saved_at != self.step:
                self.save()
            left = False
            if self.finished and not self.measured:
                (left,) = map(bool, self.agreed(self.is_late(self.filter_seconds)))
                if not left:
                    self.measure_end()
        if left:
            self.log_main("time_limit: what is measured in the end is left to the next call")
        reason = self.stop.name or ("" if left else self.finished) or "time_limit"
        end = f"{reason} at step {self.step} of {config.steps}; the world is in {self.run.world}"
        if self.stop.number is not None:
            raise Interrupted(f"{end}, and the same command goes on from here", self.stop.number)
        self.log_main(end)
        if self.main and self.spent >= 1 and self.step < self.fewest_updates and self.config.init is None:
            log.warning(
                "only %d update(s) of the world were made in time_budget=%g, all other seconds went into "
                "what comes before and after: its pictures are not worth much; give it %d times as long",
                self.step,
                self.config.time_budget,
                math.ceil(self.fewest_updates / max(self.step, 1)),
            )

    @property
    def finished(self) -> str:
        """Says why no update is left to do; "" while one is."""
        if self.step >= self.config.steps:
            return "finished"
        if self.spent >= 1:
            return f"time_budget={self.config.time_budget:g} is used up, a larger one goes on"
        return ""

    def due(self, every: int) -> bool:
        return self.step % every == 0

    def should_stop(self) -> bool:
        """Looks at clock and signals; sets `progress`, the share of the training after the next update.

        Every process gets the same answers, or one would wait for ever for another's gradients.
        """
        budget, late = self.config.time_budget, self.is_late()
        spent = 0.0 if budget is None else min(self.budget_used(budget), 1.0)
        stop, self.spent = self.agreed(late or bool(self.stop), spent)
        self.progress = max((self.step + 1) / self.config.steps, self.spent)
        return bool(stop)

    def is_late(self, seconds: float = 0.0) -> bool:
        """Says whether this call's time_limit leaves no more than so many seconds."""
        limit = self.config.time_limit
        late = limit is not None and time.monotonic() - self.call_started + seconds > limit
        return late and self.step > self.first_step  # however long the start took: each call gets on

    def agreed(self, *answers: float) -> list[float]:
        """Gives of each answer the largest that any process has: the same in all of them."""
        values = torch.tensor(answers, dtype=torch.float64)
        if self.host_group is not None:
            dist.all_reduce(values, dist.ReduceOp.MAX, group=self.host_group)
        return values.tolist()

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
        values |= self.clock.rates(frames_per_step=config.batch_size * config.sequence_length)
        values |= {"lr": self.rate, "skipped": int(self.guard.skipped), "seconds": self.seconds_so_far()}
        if self.main:
            self.run_log.write(self.step, values)
            bar.total = max(self.step, round(self.step / self.progress))  # a time budget moves it
            bar.set_postfix(
                loss=significant(values["loss"]), waiting=f"{values['waiting']:.0%}", refresh=False
            )
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
            "or resume with a lower optimizer.lr or precision=fp32"
        )

    # ---- what is measured at the end, and on held-out episodes -------------------------------------

    def measure_end(self) -> None:
        """Measures, once, how sure the world may be of itself, its filter, and how good it is. It takes
        minutes: all that was learnt is saved by now, and a signal leaves it to the next call."""
        if not self.stopped() and self.config.model.state_weight:  # the prior has learnt on beside the images
            self.recalibrate()
        if not self.stopped() and self.world.model.filter is not None:
            self.fit_filter()
        if not self.stopped() and self.evaluated_at != self.step:
            self.evaluate()
        if self.stopped():
            return
        if self.main and (what := past_its_best(self.run_log.read("eval/loss"))):
            log.warning("held-out episodes: %s", what)
        self.measured = True
        self.save()

    def stopped(self) -> bool:
        """Says whether any process was told to stop: parts of the end are for all of them together."""
        return bool(self.agreed(bool(self.stop))[0])

    def evaluate(self) -> None:
        """With the averaged weights, in the first process; the others wait with their next gradients."""
        self.load_average()
        self.evaluated_at = self.step
        if self.validation is not None:
            values = self.validation.measure(self.world.model, stop=lambda: bool(self.stop))
            if values is not None:
                self.last_eval = values
                self.run_log.write(self.step, values)
                what = copies(values)
                if what and self.config.model.architecture != "copy_last":
                    log.warning(
                        "held-out episodes, step %d: %s; if it stays so, train longer, or a larger model",
                        self.step,
                        what,
                    )
        self.clock.restart()

    def load_average(self) -> None:
        self.world.model.load_state_dict(self.learner.average())

    def keep_buffers(self, prefix: str) -> None:
        """Gives the model that learns the buffers of the world so named: the average takes its from there."""
        for name, value in self.world.model.named_buffers():
            if name.startswith(prefix):
                self.learner.model.get_buffer(name).copy_(value)

    def recalibrate(self) -> None:
        """Measures the uncertainty once more, of the prior as the world has it in the end."""
        self.load_average()
        prior = self.world.model.prior
        if isinstance(prior, PretrainedStatePrior) and self.pretraining.calibrate(
            prior, self.world.stats, self.parent
        ):
            self.keep_buffers("prior.uncertainty.")

    def fit_filter(self) -> None:
        """Measures how far the drawing of a state corrects a frame, of the world as it is in the end."""
        clip = filter_clip(self.pretraining, self.world.stats)
        if clip is None:
            self.log_main(
                f"filter: no episode has more than eval_context={self.config.eval_context} frames to measure "
                'it on, so nothing is corrected, and no info["image_uncertainty"] told'
            )
            return
        self.load_average()
        rows = fit_filter(
            self.world.model,
            clip,
            self.config.eval_context,
            self.config.seed,
            self.world.codec.decode,
            self.filter_seconds,
            progress=self.main,
            stop=lambda: bool(self.stop),
        )
        if not rows:
            return
        self.keep_buffers("filter.")
        self.evaluated_at = -1
        which = "are not learnt from"
        if self.pretraining.filter_episodes[0] not in self.pretraining.apart:
            which = "were learnt from, for there is no other that is long enough: it may trust them too much"
        self.log_main(f"filter: measured on {rows} windows of episodes that {which}")

    # ---- checkpoints -----------------------------------------------------------------------------

    def seconds_so_far(self) -> float:
        return self.seconds + time.monotonic() - self.started

    def budget_used(self, budget: float) -> float:
        """The share of the budget that the updates have used: the learning rate's course is theirs alone."""
        theirs = budget - self.pretrain_seconds - self.filter_seconds
        return (self.seconds_so_far() - self.pretrain_seconds) / max(theirs, 1.0)

    @property
    def filter_seconds(self) -> float:
        """Gives what is set aside of a limited time for measuring the filter, after the last update."""
        if self.world.model.filter is None or not len(self.pretraining.filter_episodes):
            return 0.0
        return min(FILTER_SECONDS, self.pretraining.seconds(FILTER_SHARE))

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
            "pretrain_seconds": self.pretrain_seconds,
            "skipped": int(self.guard.skipped),
            "fingerprint": self.store.fingerprint,
            "config": asdict(self.config),
            "eval": self.last_eval,
            "parent": self.parent,
            "measured": self.measured,
        }
        self.checkpoints.save(Checkpoint(**state, rng=rng, training=training), again=self.measures_again)
        self.pretraining.stages.clear()
        self.save_world()

    def provenance(self) -> dict[str, Any]:
        """The world's provenance."""
        apart = {} if self.config.prior.kind == "none" else {"episodes_apart": len(self.pretraining.apart)}
        return provenance(
            self.config,
            self.store,
            self.held_out,
            self.step,
            self.seconds_so_far(),
            self.last_eval,
            self.parent,
        ) | {"codec": self.codec.quality, "found": list(self.codec.codec.config.found), **apart}

    def save_world(self) -> None:
        made = self.provenance()
        self.world.provenance, self.world.card = (
            made,
            model_card(self.store.schema, self.world.prior_config, made),
        )
        try:
            self.world.save(self.run.world)
        except OSError as error:
            raise OSError(
                f"could not write the world {self.run.world} ({error}): an earlier one is untouched, and "
                f"the checkpoint of step {self.step} is complete: make room on the disk and run the same "
                "command again"
            ) from error

    def resume(self, checkpoint: Checkpoint) -> None:
        training = checkpoint.training
        self.parent = training["parent"]
        changed = check_continuation(training, self.config, self.store.fingerprint, self.run.path)
        self.learner.load(checkpoint.weights, checkpoint.ema, checkpoint.optimizer)
        restore_rng(checkpoint.rng, self.accelerator.process_index)
        self.step, self.seconds, self.last_eval = training["step"], training["seconds"], training["eval"]
        self.pretrain_seconds = training["pretrain_seconds"]
        if self.config.time_budget is not None:
            # By the clock of the one that opened its data first: whether all is finished all must say.
            (self.spent,) = self.agreed(min(self.budget_used(self.config.time_budget), 1.0))
        # What was measured at an end is so no more where updates follow, or where another world is given.
        measured = training.get("measured", False) and bool(self.finished)
        self.measures_again = measured and not self.gives_the_same(training["config"])
        self.measured = measured and not self.measures_again
        self.guard = NonFiniteGuard(self.accelerator.device, training["skipped"])
        self.log_main(f"resuming at step {self.step}" + "".join(f"\n  changed: {line}" for line in changed))

    def log_main(self, message: str) -> None:
        if self.main:
            log.info(message)
