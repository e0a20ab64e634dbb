"""Numbers that are finite, and yet would ruin what is learned."""

import numpy as np
import pytest

from scd_datasets.preparation.check import check_dataset
from scd_datasets.sources.lerobot.reader import LeRobotFolder
from scd_datasets.sources.source import DamagedEpisode

from ..by_hand import LENGTH, write_dataset

REWARD = {"next.reward": {"dtype": "float32", "shape": [1], "names": None}}


def put(value, key="action", episode=1, frame=4):
    def change(columns):
        if key == "next.reward":
            columns[key] = [0.0] * (LENGTH - 1) + [1.0]
        if columns["episode_index"][0] == episode:
            if key == "next.reward":
                columns[key][frame] = value
            else:
                columns[key][frame][1] = value

    return change


@pytest.mark.parametrize(
    ("key", "value"), [("action", 1e30), ("observation.state", -1e12), ("next.reward", 3e38)]
)
def test_an_absurd_value_is_damage(tmp_path, key, value):
    features = REWARD if key == "next.reward" else {}
    root = write_dataset(tmp_path / "d", columns=put(value, key), features=features)
    with pytest.raises(
        DamagedEpisode, match=rf"episode 1 .*{key} \S+ is \S+ at frame 4, .* times its usual range"
    ):
        check_dataset(LeRobotFolder(root))
    report = check_dataset(LeRobotFolder(root), skip_bad=True)
    assert [one.episode.index for one in report.good] == [0, 2]
    assert max(report.schema.action_high) < 2


def test_an_odd_value_is_kept_and_said(tmp_path):
    root = write_dataset(tmp_path / "d", columns=put(900.0))
    report = check_dataset(LeRobotFolder(root))
    assert report.schema.action_high[1] == 900
    assert "action dy: is 900 at frame 4 of episode 1, " in report.table()


def test_usual_values_are_not_odd(tmp_path):
    """Nor is a sparse reward, or a gripper that closes once."""

    def change(columns):
        columns["next.reward"] = [0.0] * (LENGTH - 1) + [1.0]
        columns["action"] = [[a, float(i == 9)] for i, (a, _) in enumerate(columns["action"])]

    report = check_dataset(LeRobotFolder(write_dataset(tmp_path / "d", columns=change, features=REWARD)))
    assert "usual range" not in report.table()


def test_dimensions_that_never_move_are_one_line(tmp_path):
    def still(columns):
        columns["action"] = [[a, -1.5] for a, _ in columns["action"]]
        columns["observation.state"] = [[x, 0.0, 0.0] for x, _, _ in columns["observation.state"]]

    report = check_dataset(LeRobotFolder(write_dataset(tmp_path / "d", columns=still)))
    lines = [line for line in report.table().splitlines() if "never move" in line]
    assert len(lines) == 2
    assert "action: 1 of 2 never move: dy" in lines[0]
    assert "state: 2 of 3 never move: y, z" in lines[1]
    assert report.to_dict()["action"]["dy"] == {"low": -1.5, "high": -1.5, "unit": None, "moves": False}


def test_an_episode_that_is_another_again_is_left_out(tmp_path):
    """Under another index it would be trained on and held out as well."""
    first = {}

    def repeat(columns):
        for key in ("observation.state", "action"):
            if columns["episode_index"][0] == 2:
                columns[key] = first[key]
            first.setdefault(key, columns[key])

    report = check_dataset(LeRobotFolder(write_dataset(tmp_path / "d", columns=repeat)), tmp_path / "s.zarr")
    assert report.store.episode_index.tolist() == [0, 1]
    assert "1 repeat another number by number: 2 (0) → left out" in report.table()


def test_commands_alone_may_well_be_the_same(tmp_path):
    def repeat(columns):
        columns.pop("observation.state")
        columns["action"] = np.ones((LENGTH, 2)).tolist()

    root = write_dataset(tmp_path / "d", columns=repeat, features={"observation.state": None})
    assert len(check_dataset(LeRobotFolder(root)).good) == 3


def test_ranges_have_the_unit_that_names_tell(tmp_path):
    described = {"action": {"dtype": "float32", "shape": [2], "names": ["elbow_rad", "grip [mm]"]}}
    table = check_dataset(LeRobotFolder(write_dataset(tmp_path / "d", features=described))).table()
    assert [line.split()[-1] for line in table.splitlines() if line.startswith("action ")] == ["rad", "mm"]


def test_an_absurd_value_in_several_rows_is_no_usual_one(tmp_path):
    """Two rows of sixty were enough to make it one of the quantiles."""

    def change(columns):
        if columns["episode_index"][0] == 1:
            for frame in (3, 4, 5):
                columns["action"][frame][0] = 1e30

    root = write_dataset(tmp_path / "d", columns=change)
    with pytest.raises(DamagedEpisode, match=r"episode 1 .*action dx is 1e\+30 at frame 3"):
        check_dataset(LeRobotFolder(root))


def test_a_sentinel_in_every_tenth_row_is_odd(tmp_path):
    def change(columns):
        for frame in (0, 9):
            columns["observation.state"][frame][2] = -9999.0

    table = check_dataset(LeRobotFolder(write_dataset(tmp_path / "d", columns=change))).table()
    assert "observation.state z: is -9999 at frame" in table


def test_what_a_float32_cannot_hold_is_damage(tmp_path):
    double = {"action": {"dtype": "float64", "shape": [2], "names": ["dx", "dy"]}}
    root = write_dataset(tmp_path / "d", columns=put(1e39), features=double)
    with pytest.raises(DamagedEpisode, match=r"episode 1 .*action dy is 1e\+39 at frame 4"):
        check_dataset(LeRobotFolder(root))


def test_a_success_that_is_no_number_is_damage(tmp_path):
    success = {"next.success": {"dtype": "float32", "shape": [1], "names": None}}

    def change(columns):
        columns["next.success"] = [0.0] * (LENGTH - 1) + [float("nan")]

    with pytest.raises(DamagedEpisode, match=r"next\.success \S+ is nan at frame 19"):
        check_dataset(LeRobotFolder(write_dataset(tmp_path / "d", columns=change, features=success)))


@pytest.mark.parametrize(("count", "what"), [(1, "one episode, and one is held out"), (3, "ready")])
def test_a_single_episode_is_not_enough(tmp_path, count, what):
    assert what in check_dataset(LeRobotFolder(write_dataset(tmp_path / "d", episodes=count))).verdict
