"""A run's folder: one trainer at a time, its log, its checkpoints, and the world it ends with.

config.json · log.jsonl · tensorboard/ · pretraining/ · codec/ · latents.zarr · checkpoints/ · world/
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from scd_world.codec.config import CodecTrainConfig
from scd_world.model.config import of_file
from scd_world.prior.config import MotionPretrainConfig, PriorSettings
from scd_world.training.config import TrainConfig
from scd_world.utils.atomic_folder import OLD, put_back, replace_text
from scd_world.utils.output_folder import claim_folder
from scd_world.utils.settings_diff import changes

# What must not change between a run and its continuation: everything else may, and is reported.
PRIOR = tuple(f"prior.{field.name}" for field in fields(PriorSettings))
APART = "prior.calibration_share"  # episodes that nothing is learnt from: units are measured on the others
FIXED = ("model", "codec", "seed", *PRIOR, APART, "data.holdout", "method", "grid", "teacher")
UNKNOWN_TEACHER = ""  # of a distillation of format 3, which counted other names among its digest


class RunFolder:
    def __init__(self, out: str | Path) -> None:
        self.path = Path(out)
        self.checkpoints, self.world = self.path / "checkpoints", self.path / "world"
        self.tensorboard, self.log = self.path / "tensorboard", self.path / "log.jsonl"
        self.pretraining = self.path / "pretraining"  # until the first checkpoint
        self.codec, self.latents = self.path / "codec", self.path / "latents.zarr"  # where one is learnt
        self.stats = self.path / "stats.safetensors"  # of the world that this training started from
        self.units = self.path / "units.safetensors"  # the same of one that started from none

    @property
    def has_checkpoints(self) -> bool:
        return any(self.checkpoints.glob("step_*")) or any(self.checkpoints.glob(f".step_*{OLD}"))

    def claim(self, command: str) -> None:
        """Takes the folder for a command before any work.

        ValueError where it holds what is not a run's, or a finished world whose checkpoints are gone: to
        train anew there would overwrite it.
        """
        claim_folder(self.path, command, ("config.json", ("out", "model", "data", "steps")))
        if self.world.is_dir() and not self.has_checkpoints:
            raise ValueError(
                f"{self.world} is a world, and the checkpoints that led to it are gone: to go on from it "
                f"give init={self.world} and another out=; to train anew here, move it away"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One trainer per folder. The kernel drops the lock when its holder dies, however it dies."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise BlockingIOError(
                f"another trainer is at work in {self.path}: wait for it, stop it, or choose another out="
            ) from error
        try:
            put_back(self.checkpoints)
            put_back(self.path)
            yield
        finally:
            lock.release()

    def write_config(self, config: TrainConfig) -> None:
        replace_text(self.path / "config.json", json.dumps(asdict(config), indent=1) + "\n")


def check_continuation(
    training: Mapping[str, Any], config: TrainConfig, fingerprint: str, out: Path
) -> list[str]:
    """ValueError where this run cannot continue what lies in `out`; else what changed, for the log."""
    if training["fingerprint"] != fingerprint:
        raise ValueError(
            f"{out} was trained on other data (fingerprint {training['fingerprint'][:12]}…, now "
            f"{fingerprint[:12]}…): name the same dataset, or choose another out="
        )
    before = training["config"]
    codec = before.get("codec", asdict(CodecTrainConfig()))  # older ones had none
    prior = {"motion": asdict(MotionPretrainConfig()), **before.get("prior", {})}  # nor dense motion
    before = {**before, "model": of_file(before["model"]), "codec": codec, "prior": prior}
    changed = changes(before, asdict(config))
    if training["config"].get("teacher") == UNKNOWN_TEACHER:
        changed.pop("teacher", None)
    wrong = [line for key, line in changed.items() if key.startswith(FIXED)]
    if config.init is not None and not is_same_place(config.init, before.get("init")):
        wrong.append(f"init={config.init} for {before.get('init')}, whose weights have learned on since")
    if wrong:
        raise ValueError(
            f"{out} holds another training ({'; '.join(wrong)}): use its settings to resume, or another out="
        )
    return list(changed.values())


def is_same_place(one: str, other: str | None) -> bool:
    """Says whether two names mean one world, however the path to it is written."""
    return other is not None and (one == other or Path(one).resolve() == Path(other).resolve())
