"""The log of a training: sums kept on the device, JSON lines and TensorBoard on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from scd_world.utils.atomic_folder import replace_text


class Meter:
    """Sums of finite updates' scalars, on their device; read, and started anew, once per log line."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def add(self, values: Mapping[str, Tensor], bad: Tensor) -> None:
        for name, value in {**values, "updates": torch.ones_like(bad, dtype=torch.float32)}.items():
            finite = torch.where(bad, 0.0, value.detach().float())
            self.sums[name] = self.sums.get(name, 0) + finite

    def take(self) -> tuple[list[str], Tensor]:
        """Names and (n,) sums."""
        names, sums = list(self.sums), torch.stack(list(self.sums.values()))
        self.sums = {}
        return names, sums


class NonFiniteGuard:
    """Counts updates that were skipped because a gradient was not finite, without making the host wait."""

    LIMIT = 3  # in a row

    def __init__(self, device: torch.device, skipped: int = 0) -> None:
        self.skipped = torch.tensor(skipped, device=device)
        self.in_a_row = torch.zeros_like(self.skipped)
        self.fatal = torch.full_like(self.skipped, -1)  # the step at which the limit was first reached

    def see(self, bad: Tensor, step: int) -> None:
        self.skipped += bad
        self.in_a_row = (self.in_a_row + 1) * bad
        reached = (self.in_a_row >= self.LIMIT) & (self.fatal < 0)
        self.fatal = torch.where(reached, step, self.fatal)


class Throughput:
    """Time since the last log line: how much in all, how much of it spent waiting for data."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.began, self.waited, self.steps = time.perf_counter(), 0.0, 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """One step's wait for its data."""
        began = time.perf_counter()
        yield
        self.waited += time.perf_counter() - began
        self.steps += 1

    def rates(self, frames_per_step: int) -> dict[str, float]:
        seconds = max(time.perf_counter() - self.began, 1e-9)
        rate = self.steps / seconds
        return {
            "steps_per_s": rate,
            "frames_per_s": rate * frames_per_step,
            "waiting": self.waited / seconds,
        }


class RunLog:
    """`log.jsonl` and TensorBoard, both without what a killed run had written past its last checkpoint."""

    def __init__(self, path: Path, tensorboard: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = path
        if path.exists():
            replace_text(path, "".join(line for line in path.open() if step_of(line) <= step))
        self.writer = SummaryWriter(tensorboard, purge_step=step + 1, flush_secs=10)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def read(self, name: str) -> dict[int, float]:
        """Gives a value by its step, of all steps at which it was written."""
        rows = [json.loads(line) for line in self.path.open(encoding="utf-8")] if self.path.exists() else []
        return {row["step"]: row[name] for row in rows if name in row}

    def close(self) -> None:
        self.writer.close()


def step_of(line: str) -> float:
    """The step of a log line; a line that a killed run left unfinished belongs nowhere."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return float("inf")
