"""Ctrl-C ends a command with one line and status 130: what is kept, how to go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scd_world.cli import commands, run_command
from scd_world.training.checkpoint import Checkpoints
from scd_world.utils.interruption import Interrupted
from scd_world.world.world import World

# A shell starts what it puts into the background with SIGINT ignored, and children inherit that.
COMMAND = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "sys.argv[0] = 'scd-train'; from scd_world.cli.commands import train; train()"
)
SMALL = {
    "data": "zarr",
    "codec": "identity",  # or an autoencoder would be learnt first
    "model": "nano",
    "prior.width": 16,
    "prior.renderer_parts": 0,
    "prior.dynamics.rollout_length": 2,
    "sequence_length": 4,
    "batch_size": 4,
    "num_start_states": 2,
    "device": "cpu",
    "steps": 10**6,
    "log_every": 1,
    "eval_every": 10**6,
    "checkpoint_every": 10**6,
}


@pytest.fixture
def interrupted(slide_store, tmp_path):
    """interrupted(ready, *settings): the run folder and the last line of a training that was interrupted once
    ready(run folder, its output so far) said so."""

    def go(
        ready: Callable[[Path, str], bool], *settings: str, number: signal.Signals = signal.SIGINT
    ) -> tuple[Path, str]:
        out, log = tmp_path / "run", tmp_path / "said"
        words = [f"data.root={slide_store}", f"out={out}", *settings]
        words += [f"{name}={value}" for name, value in SMALL.items()]
        with log.open("w") as said:
            process = subprocess.Popen([sys.executable, "-c", COMMAND, *words], stdout=said, stderr=said)
        deadline = time.monotonic() + 120
        while not ready(out, log.read_text()):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(timeout=60) == 128 + number
        text = log.read_text()
        print(text)  # shown where a test fails
        assert "Traceback" not in text
        return out, text.splitlines()[-1]

    return go


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_anything_is_written(interrupted, number):
    out, last = interrupted(lambda out, said: out.is_dir(), number=number)
    assert last.startswith("interrupted: every finished stage and checkpoint is kept")
    assert not list(out.glob("checkpoints/step_*"))


@pytest.mark.slow
def test_while_pretraining(interrupted):
    def ready(out: Path, said: str) -> bool:
        time.sleep(1)  # the first updates
        return "dynamics:" in said

    out, last = interrupted(ready, "prior.dynamics.steps=1000000")
    stage = json.loads((out / "pretraining" / "dynamics" / "stage.json").read_text())
    assert 0 < stage["progress"] < 1
    assert f"dynamics is kept up to update {stage['update']}, and the same command goes on" in last


@pytest.mark.slow
def test_while_training(interrupted):
    out, last = interrupted(lambda out, said: (out / "log.jsonl").exists(), "prior=none")
    step = Checkpoints(out / "checkpoints").newest().step
    assert last.startswith(
        f"SIGINT at step {step} of 1000000; the world is in {out / 'world'}, and the same "
    )
    assert World.load(out / "world").provenance["steps"] == step


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (KeyboardInterrupt(), 130, f"interrupted: {run_command.COMMANDS['data'].kept}"),
        (Interrupted("half is kept", signal.SIGINT), 130, "half is kept"),
        (Interrupted("half is kept", signal.SIGTERM), 143, "half is kept"),
        (Interrupted("", signal.SIGTERM), 143, f"interrupted: {run_command.COMMANDS['data'].kept}"),
    ],
)
def test_the_line_and_the_status(capsys, monkeypatch, error, status, line):
    monkeypatch.delenv("SCD_DEBUG", raising=False)
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    monkeypatch.setattr(run_command, "run_command", lambda _: (_ for _ in ()).throw(error))
    monkeypatch.setattr(commands.signal, "signal", lambda *_: None)  # of the test's own process
    commands.data()
    assert left == [status]
    assert capsys.readouterr().err == f"{line}\n"


def test_a_process_that_a_command_has_made_ends_at_once():
    """As it would without the command's own answer to SIGTERM."""
    script = """
import os, signal, time
from functools import partial
from scd_world.cli.commands import terminate
signal.signal(signal.SIGTERM, partial(terminate, process=os.getpid()))
ready, say = os.pipe()
made = os.fork()
if not made:
    os.write(say, b"x")  # what comes earlier is lost in a fork
    time.sleep(60)
    os._exit(0)
os.read(ready, 1)
os.kill(made, signal.SIGTERM)
print(os.waitpid(made, 0)[1])
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.stdout == f"{int(signal.SIGTERM)}\n", ended.stderr
