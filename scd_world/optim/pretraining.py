"""Pretraining stages before the first window: dynamics, outcome, cameras, renderer and dense motion, each a
short training of one network.

They may take most of a training's time, so each is kept as it goes on and once it is over, until the first
checkpoint holds its result: a run that is killed goes on where it was.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scd_world.optim.ema import EMA
from scd_world.utils.atomic_folder import DamagedFolder, verify, write_folder
from scd_world.utils.settings_diff import changes

log = logging.getLogger(__name__)
KEEP_EVERY = 60.0  # seconds
Optimizers = Sequence[tuple[torch.optim.Optimizer, float]]  # and their learning rates


class PretrainStage:
    """The training of one network: `start`, then `run`; in between an unfinished one may have been found."""

    def __init__(
        self,
        seconds: float = math.inf,
        folder: Path | None = None,
        depends_on: Mapping[str, Any] | None = None,
        writes: bool = True,
    ) -> None:
        """seconds: that it may take. folder: where it is kept; what lies there is gone on with where it began
        in the same `depends_on`, in plain JSON; `writes`: in the first of several processes."""
        self.seconds, self.folder, self.writes = seconds, folder, writes
        self.depends_on = json.loads(json.dumps(depends_on))
        self.update, self.progress, self.elapsed = 0, 0.0, 0.0
        self.before = 0.0  # seconds that earlier starts gave it

    def start(
        self,
        network: nn.Module,
        optimizers: Optimizers,
        generator: torch.Generator,
        ema: float | None = None,
        clip: float = 1.0,
    ) -> None:
        """ema: decay of the average of the weights that the stage leaves; None: it leaves the last ones.
        clip: the largest norm of a gradient."""
        self.clip = clip
        self.network, self.optimizers, self.generator = network, optimizers, generator
        self.average = None if ema is None else EMA(network.named_parameters(), ema)
        if self.folder is not None and self.folder.is_dir():
            self.restore(self.folder)

    def run(
        self, steps: int, rates: Callable[[float], float], loss: Callable[[float], Tensor]
    ) -> Generator[Tensor]:
        """Yields the loss of each update. At most `steps` of them, and at most for its seconds: whichever
        ends first, the learning rate, `rates` of the progress in (0, 1], has come down by then."""
        if self.progress == 1:
            return  # an earlier start gave it
        began = time.monotonic() - self.elapsed
        kept = time.monotonic()
        try:
            while self.update < steps and self.progress < 1:
                self.elapsed = time.monotonic() - began
                self.progress = min(max((self.update + 1) / steps, self.elapsed / self.seconds), 1.0)
                yield self._update(rates(self.progress), loss(self.progress))
                # Not after the last one: what is kept of that is the average.
                if self.progress < 1 and time.monotonic() - kept > KEEP_EVERY:
                    self.save()
                    kept = time.monotonic()
        finally:  # also where it is ended early
            if self.average is not None:
                buffers = self.network.state_dict()
                self.network.load_state_dict({**buffers, **self.average.weights()})
        self.progress = 1.0
        self.save()

    def _update(self, share: float, loss: Tensor) -> Tensor:
        """One update at this share of the learning rates."""
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        for optimizer, rate in self.optimizers:
            optimizer.param_groups[0]["lr"] = share * rate
            optimizer.step()
        self.network.zero_grad()  # after the last one too, or it would be the world's first
        if self.average is not None:
            self.average.update(self.network.named_parameters(), self.update)
        self.update += 1
        return loss.detach()

    # ---- on disk ---------------------------------------------------------------------------------------

    def save(self) -> None:
        if self.folder is not None and self.writes:
            write_folder(self.folder, self.write)

    def write(self, folder: Path) -> None:
        save_file(contiguous(self.network.state_dict()), folder / "weights.safetensors")
        if self.progress < 1:
            average = {} if self.average is None else self.average.weights()
            save_file(contiguous(average), folder / "average.safetensors")
            state = optimizer_tensors(self.optimizers) | {"generator": self.generator.get_state()}
            save_file(contiguous(state), folder / "optimizers.safetensors")
        where = {"update": self.update, "progress": self.progress, "elapsed": self.elapsed}
        text = json.dumps(where | {"depends_on": self.depends_on}, indent=1)
        (folder / "stage.json").write_text(text)

    def restore(self, folder: Path) -> None:
        try:
            verify(folder)
        except DamagedFolder as error:
            log.warning("%s; this stage is given from its beginning", error)
            return
        where = json.loads((folder / "stage.json").read_text())
        changed = list(changes(where.pop("depends_on") or {}, self.depends_on or {}).values())
        unfinished = where["progress"] < 1
        state = load_file(folder / "optimizers.safetensors") if unfinished else {}
        optimizers_before = len({key.partition("/")[0] for key in state} - {"generator"})
        weights = load_file(folder / "weights.safetensors")
        if shapes(weights) != shapes(self.network.state_dict()):
            changed.append("another network")
        if unfinished and optimizers_before != len(self.optimizers):
            changed.append(f"optimizers: {optimizers_before} before, {len(self.optimizers)} now")
        if changed:
            how = f"{where['elapsed']:.0f} seconds were given to this stage with other settings"
            log.warning("%s: %s (%s); it is given from its beginning", folder, how, "; ".join(changed))
            return
        self.update, self.progress, self.elapsed = where["update"], where["progress"], where["elapsed"]
        self.before = self.elapsed
        self.network.load_state_dict(weights)
        if unfinished:
            if self.average is not None:
                self.average.load(load_file(folder / "average.safetensors"))
            self.generator.set_state(state.pop("generator"))
            load_optimizer_tensors(self.optimizers, state)


class PretrainStages:
    """Those of one run."""

    def __init__(self, folder: Path, depends_on: Mapping[str, Any], writes: bool = True) -> None:
        """depends_on: all that their outcome depends on; what was learnt in others is not taken."""
        self.folder, self.depends_on, self.writes = folder, depends_on, writes

    def stage(self, name: str, seconds: float, **more: Any) -> PretrainStage:
        """more: what this one depends on besides."""
        return PretrainStage(seconds, self.folder / name, {**self.depends_on, **more}, self.writes)

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in tensors.items()}


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in tensors.items()}


def optimizer_tensors(optimizers: Optimizers) -> dict[str, Tensor]:
    """`<optimizer>/<parameter>/exp_avg` and so on."""
    return {
        f"{i}/{parameter}/{name}": value
        for i, (optimizer, _) in enumerate(optimizers)
        for parameter, moments in optimizer.state_dict()["state"].items()
        for name, value in moments.items()
    }


def load_optimizer_tensors(optimizers: Optimizers, tensors: Mapping[str, Tensor]) -> None:
    for i, (optimizer, _) in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            which, parameter, name = key.split("/")
            if int(which) == i:
                state.setdefault(int(parameter), {})[name] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
