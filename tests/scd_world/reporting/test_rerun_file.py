"""A recording for rerun: every picture bit by bit, every curve at its frame, frames at the world's rate."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scd_world.evaluation.config import EvaluateConfig
from scd_world.evaluation.evaluate import evaluate
from scd_world.reporting.rerun_file import Plot, load_rerun, write_recording
from scd_world.rollouts.config import RolloutConfig
from scd_world.rollouts.imagine import imagine_dataset

REASON = "rerun is an extra: pip install '.[rerun]'"


def read(path: Path) -> dict[str, list[tuple[int, float, Any]]]:
    """Reads entity → (frame, seconds, picture or values) of each row, with rerun's own reader."""
    experimental = pytest.importorskip("rerun.experimental", reason=REASON)
    found: dict[str, list[tuple[int, float, Any]]] = {}
    for chunk in experimental.RrdReader(path).store().stream().to_chunks():
        rows = chunk.to_record_batch().to_pydict()
        if chunk.is_static or "frame_index" not in rows:
            continue
        (value,) = (rows[name] for name in rows if name in ("EncodedImage:blob", "Scalars:scalars"))
        for frame, time, cell in zip(rows["frame_index"], rows["time"], value, strict=True):
            blob = isinstance(cell[0], list | bytes)
            content = np.asarray(Image.open(io.BytesIO(bytes(cell[0])))) if blob else np.array(cell)
            found.setdefault(chunk.entity_path, []).append((frame, time.total_seconds(), content))
    return {entity: sorted(rows, key=lambda row: row[0]) for entity, rows in found.items()}


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 8, 12, 3), np.uint8)


def test_what_is_written_is_read_back(frames, tmp_path):
    pytest.importorskip("rerun", reason=REASON)
    values = np.array([[0.0, np.nan], [1, 10], [2, 20], [3, 30], [4, 40]])
    pictures = {"the top/left": {"recorded": frames, "difference × 3": frames[::-1]}}
    plots = {"state": {"x (mm)": Plot(("recorded", "imagined"), values)}}
    write_recording(tmp_path / "a.rrd", 10, pictures, plots, "about it")
    found = read(tmp_path / "a.rrd")
    assert len(found) == 3
    parts = ("recorded", "difference", "mm")
    pick = {part: next(rows for name, rows in found.items() if part in name) for part in parts}
    for i in range(5):
        for rows in pick.values():
            assert rows[i][:2] == (i, pytest.approx(i / 10))
        np.testing.assert_array_equal(pick["recorded"][i][2], frames[i])
        np.testing.assert_array_equal(pick["difference"][i][2], frames[4 - i])
        np.testing.assert_array_equal(pick["mm"][i][2], values[i])


def test_two_recordings_of_one_name_stay_two(frames, tmp_path):
    """rerun merges files of one id: of two evaluations the viewer would show a mixture."""
    pytest.importorskip("rerun", reason=REASON)
    experimental = pytest.importorskip("rerun.experimental", reason=REASON)
    ids = set()
    for run in ("a", "b"):
        (tmp_path / run / "evaluation").mkdir(parents=True)
        path = tmp_path / run / "evaluation" / "window_0.rrd"
        write_recording(path, 10, {"top": {"imagined": frames}}, {}, "")
        (entry,) = experimental.RrdReader(path).recordings()
        ids.add(entry.recording_id)
    assert len(ids) == 2


def test_pictures_and_plots_of_different_lengths_are_refused(frames, tmp_path):
    pytest.importorskip("rerun", reason=REASON)
    plots = {"state": {"x": Plot(["x"], np.zeros((4, 1)))}}
    with pytest.raises(ValueError, match=r"a\.rrd: pictures and plots have \[4, 5\] frames"):
        write_recording(tmp_path / "a.rrd", 10, {"top": {"imagined": frames}}, plots, "")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named_with_its_cure_before_any_work(monkeypatch, tmp_path):
    """There is neither a world nor data: whatever looks for them first fails otherwise."""
    monkeypatch.setitem(sys.modules, "rerun", None)
    out, cure = tmp_path / "out", r"rerun=true needs an extra: pip install .*\[rerun\]"
    with pytest.raises(ValueError, match=cure):
        load_rerun()
    rollout = RolloutConfig(world="no/world", out=str(out), rerun=True)
    with pytest.raises(ValueError, match=cure):
        imagine_dataset(rollout)
    with pytest.raises(ValueError, match=cure):
        evaluate(EvaluateConfig(world="no/world", out=str(out), rerun=True))
    assert not out.exists()
    with pytest.raises(ValueError, match="rerun=true records the episodes that num_videos counts"):
        replace(rollout, num_videos=0)
