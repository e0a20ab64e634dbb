"""A machine that has torch and little else trains from a window store, and measures what came of it."""

from __future__ import annotations

import subprocess
import sys

WITHOUT = ("av", "pyarrow", "lerobot", "gymnasium", "h5py", "cvvdp", "datasets")
RUN = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
from scd_world.cli.run_command import run_command

for command, *settings in {commands}:
    sys.argv = ["scd-" + command, *settings]
    run_command(command)
"""


def test_a_store_is_learnt_from_and_measured_without_what_reads_recordings(slide_store, tmp_path):
    data = f"data.root={slide_store}"
    train = ["train", "data=zarr", data, f"out={tmp_path}/run", "model=nano", "steps=1", "eval_every=1000"]
    small = ["codec.steps=1", "prior=none", "data.holdout=0.25", "batch_size=1", "device=cpu"]
    measure = ["evaluate", data, f"world={tmp_path}/run/world", f"out={tmp_path}/measured", "windows=1"]
    short = [
        "context=2",
        "horizon=2",
        "sweep_starts=0",
        "still_moments=0",
        "outcome_episodes=0",
        "device=cpu",
    ]
    code = RUN.format(names=set(WITHOUT), commands=[[*train, *small], [*measure, *short]])
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "measured" / "report.md").is_file()
    assert (tmp_path / "measured" / "film.webp").is_file()
    assert not (tmp_path / "measured" / "film.mp4").exists()
    assert "film.webp shows the same" in done.stderr + done.stdout
