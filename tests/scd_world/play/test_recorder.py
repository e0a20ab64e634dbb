"""What is kept is what was played, marked as imagined; a folder that does not take it costs nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from scd_datasets.sources.lerobot.reader import LeRobotFolder
from scd_world.play.pictures import from_png
from scd_world.play.recorder import Recorder


@pytest.fixture
def tape(world, play):
    session = play(world, seed=5)
    for action in np.random.default_rng(0).uniform(-1, 1, (6, 2)):
        session.step(action)
    return session.tape


@pytest.mark.slow
def test_a_folder_that_comes_back_gets_everything(world, tape, target, tmp_path):
    out, said = tmp_path / "here" / "played", []
    (tmp_path / "here").write_text("in the way")  # no folder can be made below a file
    recorder = Recorder(out, target)
    recorder.keep(tape, lambda level, text: said.append((level, text)))
    recorder.wait()
    assert [level for level, _ in said] == ["info", "error"]
    assert "still in memory" in said[1][1]
    assert (len(recorder.unsaved), recorder.written) == (1, 0)
    (tmp_path / "here").unlink()
    recorder.keep(tape.branch(4), lambda level, text: said.append((level, text)))
    recorder.wait()
    recorder.close()
    assert [text.partition(":")[0] for _, text in said[2:]] == [
        f"4 frames are being written to {out}",
        "kept",
        "kept",
    ]
    assert (recorder.unsaved, recorder.written) == ([], 2)

    written = LeRobotFolder(out)
    assert [episode.length for episode in written.episodes] == [6, 4]
    rows, pixels = written.low_dim(written.episodes[0]), written.pixels(written.episodes[0])
    moments = tape.moments
    assert np.array_equal(rows["action"], np.stack([m.action for m in moments[1:]]))
    states = np.column_stack([rows["observation.state"], rows["observation.environment_state"]])
    assert np.array_equal(states, np.stack([m.state for m in moments[:-1]]))
    assert np.allclose(np.ravel(rows["next.reward"]), [m.reward for m in moments[1:]])
    shown = [[from_png(picture) for picture in m.pictures] for m in moments[:-1]]
    assert np.array_equal(pixels, shown)
    marks = json.loads((out / "meta/imagined.json").read_text())
    note = marks["episodes"][0]
    assert marks["imagined"] is True
    assert (note["policy"], note["drivers"], note["seed"]) == ("person", {"person": 6}, 5)
    assert json.loads((out / "meta/info.json").read_text())["robot_type"].startswith("imagined:")


@pytest.mark.slow
def test_what_no_folder_took_is_written_elsewhere_at_the_end(tape, target, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("not a dataset")
    recorder = Recorder(tmp_path / "mine", target)
    recorder.keep(tape, lambda level, text: None)
    recorder.close()
    assert recorder.unsaved == []
    (found,) = (tmp_path / "temporary").glob("scd-play-*/played")
    assert str(found) in caplog.text
    assert LeRobotFolder(found).episodes[0].length == 6
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
