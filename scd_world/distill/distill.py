"""Worlds that render in 1, 2 or 4 steps: a trained world is its own teacher, and a copy of it the student.

`consistency.py` and `meanflow.py` train the decoder to take large steps, the context fixed;
`self_rollout.py` and `dmd.py` train the whole model on frames of its own. This file runs them with
`scd-train`'s own trainer; `steps.py` measures quality against denoising steps.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from scd_datasets.preparation.open_store import open_store
from scd_datasets.store.store import WindowStore
from scd_world.distill.config import Distillation, DistillConfig
from scd_world.distill.consistency import Consistency
from scd_world.distill.dmd import DistributionMatching
from scd_world.distill.meanflow import MeanFlow
from scd_world.distill.objective import Objective
from scd_world.distill.self_rollout import SelfRollout
from scd_world.distill.steps import compare_steps
from scd_world.model.world_model import WorldModel
from scd_world.robot_data.compatibility import check_schema
from scd_world.robot_data.normalizer import Normalizer
from scd_world.training.check_settings import check_before_decoding
from scd_world.training.distributed import make_accelerator
from scd_world.training.latents import TrainedCodec
from scd_world.training.learner import Learner
from scd_world.training.run_folder import RunFolder
from scd_world.training.trainer import Trainer
from scd_world.world.build_model import build_model
from scd_world.world.world import World, find_folder
from scd_world.world.world_config import read_config

log = logging.getLogger(__name__)


def distill(config: DistillConfig) -> Path:
    """Distills, or resumes, in `config.out`; gives the folder of the distilled world.

    ValueError: the teacher is no SCD, the data does not fit it, or the run began with another teacher.
    """
    called = time.monotonic()
    run, teacher = RunFolder(config.out), World.load(config.world)
    if teacher.config.architecture != "scd":
        raise ValueError(
            f"{config.world} is a world of architecture={teacher.config.architecture}: only architecture=scd "
            "has a decoder separate from its encoder, and it is the decoder that is distilled"
        )
    if config.method != "rollout" and config.num_steps >= teacher.config.num_steps:
        log.warning(
            "num_steps=%d, and the teacher takes %d itself: the new world will be no faster",
            config.num_steps,
            teacher.config.num_steps,
        )
    settings = config.training(
        teacher.config,
        teacher.prior_config,
        teacher.codec.config,
        weights_digest(teacher),
        teacher.provenance.get("calibration_share"),
    )
    accelerator = make_accelerator(settings)
    if accelerator.is_main_process:
        run.claim("scd-distill")
    with run.locked() if accelerator.is_main_process else nullcontext():
        with accelerator.main_process_first():
            if not run.checkpoints.exists():
                check_before_decoding(settings, accelerator.num_processes, config.compare_worlds.values())
            store = open_store(config.data, run.path, None, run.checkpoints.exists(), teacher.schema)
        check_schema(teacher.schema, store.schema, store.path)
        for other in config.compare_worlds.values():
            check_schema(read_config(find_folder(other)).schema, store.schema, store.path)
        trainer = Distiller(settings, store, run, accelerator, teacher, called)
        trainer.train()
        if accelerator.is_main_process and trainer.measured and config.report_windows:
            worlds = {"teacher": config.world, config.method: str(run.world), **config.compare_worlds}
            print(compare_steps(worlds, store, config))
    return run.world


class Distiller(Trainer):
    """A training that starts from its teacher's weights and learns from it."""

    config: Distillation
    fewest_updates = 0  # it draws as its teacher does from the first one on

    def __init__(
        self,
        config: Distillation,
        store: WindowStore,
        run: RunFolder,
        accelerator: Accelerator,
        teacher: World,
        called: float | None = None,
    ) -> None:
        self.teacher = teacher
        super().__init__(config, store, run, accelerator, called)

    def make_model(self, saved: Mapping[str, Tensor] | None) -> tuple[WorldModel, Normalizer]:
        """Makes the student of the teacher's weights, or of those of another world; what only the student has
        starts at zero."""
        teacher, start = self.teacher, self.config.init
        self.parent = teacher.provenance
        student = build_model(self.config.model, teacher.prior_config, teacher.model.schema, teacher.stats)
        weights = teacher.model if saved is not None or start is None else World.load(start).model
        try:
            missing = student.load_state_dict(weights.state_dict(), strict=False).missing_keys
        except RuntimeError as error:
            raise ValueError(
                f"init={start} is not of its teacher's sizes: start from a world that was distilled of the "
                f"same one ({error})"
            ) from error
        assert all(name.startswith("core.decoder.target_time.") for name in missing), missing
        return student, teacher.stats

    def make_codec(self, resuming: bool) -> TrainedCodec:
        """Takes the teacher's."""
        return TrainedCodec(self.teacher.codec, self.teacher.provenance.get("codec") or {})

    def gives_the_same(self, earlier: Mapping[str, Any]) -> bool:
        return earlier.get("interpolation", 1.0) == self.config.interpolation

    def make_learner(self, model: WorldModel) -> Learner:
        config, teacher = self.config, self.teacher.model
        if config.method == "rollout":
            return self.learner_of(model, SelfRollout(model, teacher))
        if config.method == "dmd":
            return self.learner_of(model, DistributionMatching(model, teacher))
        if config.method == "meanflow":
            return self.learner_of(model, MeanFlow(model, teacher))
        objective = Consistency(model, teacher, config.grid)
        learner = self.learner_of(model, objective)
        objective.follow(learner.ema.average)
        return learner

    @torch.no_grad()
    def load_average(self) -> None:
        """Takes as much of what was learned as `interpolation` says."""
        super().load_average()
        if (share := self.config.interpolation) == 1:
            return
        for name, learned in self.world.model.named_parameters():
            known = self.teacher.model.get_parameter(name).to(learned)
            learned.copy_(known.lerp(learned, share))

    def learner_of(self, model: WorldModel, objective: Objective) -> Learner:
        return Learner(model, self.stats, self.config, self.accelerator, objective)

    def provenance(self) -> dict[str, Any]:
        config = self.config
        how = {
            "method": config.method,
            "grid": config.grid,
            "num_steps": config.model.num_steps,
            "interpolation": config.interpolation,
        }
        return super().provenance() | {"distilled": how}


def weights_digest(world: World) -> str:
    """Hashes all weights, by name."""
    digest = hashlib.sha256()
    for name, value in sorted(world.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()
