"""Checkpoints of a training: complete and verified folders of safetensors and JSON, newest first, no pickle.

checkpoints/step_00001000/  {weights, ema, optimizer, rng}.safetensors · training.json · manifest.json
checkpoints/last            a link to the newest
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from scd_world.prior.uncertainty import KNOWN
from scd_world.training.run_folder import UNKNOWN_TEACHER
from scd_world.utils.atomic_folder import OLD, TEMP, DamagedFolder, beside, sync, verify, write_folder
from scd_world.utils.disk import room
from scd_world.world import format3

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """All that a training needs to go on as if it had not been interrupted."""

    weights: Mapping[str, Tensor]
    ema: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    rng: Mapping[str, Tensor]
    training: Mapping[str, Any]  # JSON: step, config, fingerprint of the data, …

    @property
    def step(self) -> int:
        return self.training["step"]


TENSORS = tuple(field.name for field in fields(Checkpoint) if field.name != "training")


class Checkpoints:
    """The checkpoints of one run. A new one takes its place whole, and only then do old ones go."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep

    def save(self, checkpoint: Checkpoint, again: bool = False) -> Path:
        """again: also where that step's is there, with all that is measured in the end."""
        target = self.folder / f"step_{checkpoint.step:08d}"
        there = undamaged(target) and is_measured(target) >= checkpoint.training.get("measured", False)
        if there and not again:
            return target  # written by an earlier run that ended here
        try:
            write_folder(target, lambda temp: write(temp, checkpoint))
            verify(target)
        except OSError as error:
            kept = self.found()
            raise OSError(
                f"could not write the checkpoint {target} ({error}): {room(size_of(checkpoint), target)}; "
                + (f"{kept[0].name} is untouched" if kept else "no earlier one exists")
                + ": make room on the disk and run the same command again to resume"
            ) from error
        self.point_last_to(target)
        self.remove_old()
        return target

    def newest(self) -> Checkpoint | None:
        """The newest complete and undamaged checkpoint; None where there is none at all."""
        found = self.found()
        for folder in found:
            try:
                verify(folder)
                return read(folder)
            except DamagedFolder as damage:
                log.warning("%s; falling back to an older checkpoint", damage)
        if found:
            raise DamagedFolder(f"none of the {len(found)} checkpoints in {self.folder} is undamaged")
        return None

    def found(self) -> list[Path]:
        """Finished checkpoints by name, newest first."""
        names = self.folder.glob("step_" + "[0-9]" * 8)
        return sorted((path for path in names if path.is_dir()), reverse=True)

    def point_last_to(self, target: Path) -> None:
        link = self.folder / "last.tmp"
        link.unlink(missing_ok=True)
        link.symlink_to(target.name)
        os.replace(link, self.folder / "last")
        sync(self.folder)

    def remove_old(self) -> None:
        for folder in self.found()[self.keep :]:
            # A folder half removed must not look like a checkpoint.
            doomed = beside(folder, TEMP)
            shutil.rmtree(doomed, ignore_errors=True)
            os.replace(folder, doomed)
        for leftover in [*self.folder.glob(f".step_*{TEMP}"), *self.folder.glob(f".step_*{OLD}")]:
            shutil.rmtree(leftover, ignore_errors=True)


def size_of(checkpoint: Checkpoint) -> int:
    """Gives the bytes of all tensors, which is what it takes on the disk."""
    return sum(value.nbytes for name in TENSORS for value in getattr(checkpoint, name).values())


def undamaged(folder: Path) -> bool:
    try:
        verify(folder)
    except DamagedFolder:
        return False
    return True


def is_measured(folder: Path) -> bool:
    """Says whether a checkpoint holds what is measured at a training's end."""
    return json.loads((folder / "training.json").read_bytes()).get("measured", False)


def write(folder: Path, checkpoint: Checkpoint) -> None:
    for name in TENSORS:
        tensors = {key: value.detach().cpu().contiguous() for key, value in getattr(checkpoint, name).items()}
        save_file(tensors, folder / f"{name}.safetensors")
    (folder / "training.json").write_text(json.dumps(checkpoint.training, indent=1) + "\n")


def read(folder: Path) -> Checkpoint:
    """Reads a checkpoint; one of format 3 under the names of today."""
    training = json.loads((folder / "training.json").read_bytes())
    old = "prepared" in training  # what format 3 called pretrain_seconds
    files = {name: "optimiser" if old and name == "optimizer" else name for name in TENSORS}
    tensors = {name: load_file(folder / f"{file}.safetensors") for name, file in files.items()}
    if old:
        log.warning(
            "%s is a checkpoint of format 3: it is read as it is, and the next one is of today", folder
        )
        training = upgrade_training(training)
        for name in ("weights", "ema", "optimizer"):
            tensors[name] = format3.upgrade_weights(tensors[name])
            format3.knots_of_line(tensors[name], KNOWN)
    return Checkpoint(**tensors, training=training)


def upgrade_training(training: Mapping[str, Any]) -> dict[str, Any]:
    """Gives training.json of format 3 under the names of today."""
    new = {"prepared": "pretrain_seconds", "measured": "eval", "ancestor": "parent"}
    training = format3.rename(training, new)
    training["config"] = format3.upgrade_train_config(training["config"])
    if "teacher" in training["config"]:  # its digest was of weights by the names of then
        training["config"]["teacher"] = UNKNOWN_TEACHER
    if training["parent"]:
        training["parent"] = format3.upgrade_provenance(training["parent"])
    return training
