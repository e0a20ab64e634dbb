"""Cameras that went dead, repeat themselves, or move: said from the pictures."""

import json

import numpy as np
import pytest
from PIL import Image

from scd_datasets.config import CheckConfig, SourceConfig
from scd_datasets.preparation.build import run_check
from scd_datasets.preparation.check import check_dataset
from scd_datasets.sources.lerobot.reader import LeRobotFolder

from ..by_hand import LENGTH, SIZE, TOP, picture, write_dataset

WRIST = "observation.images.wrist"


def black(episode, frame):
    return picture(episode, frame) * (episode != 1)


def frozen(episode, frame):
    return picture(episode, 0 if episode == 2 else frame)


def slow(episode, frame):
    return picture(episode, frame // 2)


def shaken(episode, frame):
    return np.random.default_rng([episode, frame]).integers(0, 255, (*SIZE, 3), np.uint8)


def steady(episode, frame):
    image = np.full((*SIZE, 3), 90, np.uint8)
    image[8:16, frame : frame + 8] = 200
    return image


def report_of(tmp_path, draw):
    return check_dataset(LeRobotFolder(write_dataset(tmp_path / "d", cameras={TOP: steady, WRIST: draw})))


@pytest.mark.parametrize(
    ("draw", "what"),
    [
        (black, "camera wrist: black from end to end in 1 episodes: 1"),
        (frozen, "camera wrist: one still picture from end to end in 1 episodes: 2"),
        (slow, "camera wrist: 50% of its pictures repeat the one before"),
    ],
)
def test_dead_and_slow_cameras_are_named(tmp_path, draw, what):
    assert what in report_of(tmp_path, draw).table()


def test_a_camera_that_moves_is_told_from_one_that_stands_still(tmp_path):
    top, wrist = report_of(tmp_path, shaken).cameras
    assert (top.moves, wrist.moves) == (False, True)
    assert (top.repeated, wrist.black) == (0, 0)


def test_the_report_lies_in_the_store_in_three_forms(tmp_path, capsys):
    root = write_dataset(tmp_path / "d", cameras={TOP: steady})
    run_check(CheckConfig(data=SourceConfig(root=str(root))))
    printed = capsys.readouterr().out
    assert printed.startswith("ready to train\n")
    folder = tmp_path / "d.zarr" / "report"
    assert (folder / "report.txt").read_text() == printed
    report = json.loads((folder / "report.json").read_text())
    assert report["verdict"] == "ready to train"
    assert report["cameras"]["top"]["moves"] is False
    assert report["measured_rate"]["fps"] == pytest.approx(10, rel=1e-3)
    assert report["episodes"]["lengths"] == [LENGTH] * 3
    sheet = np.asarray(Image.open(folder / "cameras.png"))
    assert (sheet == [200, 200, 200]).all(-1).any()  # the square is in it


def test_a_check_alone_writes_its_report_where_it_is_told(tmp_path, capsys):
    root = write_dataset(tmp_path / "d", "v2.1", video=True)
    run_check(CheckConfig(data=SourceConfig(root=str(root)), build=False, out=str(tmp_path / "report")))
    assert capsys.readouterr().out.startswith("ready")
    assert {"report.txt", "report.json", "cameras.png"} <= {
        file.name for file in (tmp_path / "report").iterdir()
    }
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"thesis\.tex, which scd-data has not written"):
        run_check(CheckConfig(data=SourceConfig(root=str(root)), build=False, out=str(tmp_path / "mine")))


def test_a_damaged_recording_is_called_not_ready(tmp_path, capsys):
    def damage(columns):
        if columns["episode_index"][0] == 1:
            columns["action"][3] = [float("nan"), 0.0]

    root = write_dataset(tmp_path / "d", columns=damage)
    with pytest.raises(ValueError, match="episode 1"):
        run_check(CheckConfig(data=SourceConfig(root=str(root)), build=False))
    assert capsys.readouterr().out.startswith("not ready: 1 of 3 episodes are damaged\n")
