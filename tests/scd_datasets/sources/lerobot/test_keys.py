"""Recordings under other names than LeRobot's."""

import pytest

from scd_datasets.config import SourceConfig
from scd_datasets.preparation.check import check_dataset
from scd_datasets.sources.lerobot.reader import LeRobotFolder
from scd_datasets.sources.open_source import open_source

from ...by_hand import LENGTH, TOP, write_dataset

VECTOR = {"dtype": "float32", "shape": [2], "names": None}


def renamed(root, names, **options):
    """A dataset that calls things otherwise: LeRobot's name → theirs."""
    described = {}
    for key, theirs in names.items():
        size = 3 if "state" in key else 2
        image = {"dtype": "image", "shape": [32, 48, 3]}
        described |= {key: None, theirs: image if key == TOP else VECTOR | {"shape": [size]}}

    def rename(columns):
        for key, theirs in names.items():
            columns[theirs] = columns.pop(key)

    return write_dataset(root, columns=rename, features=described, **options)


def test_openpis_names_are_known(tmp_path):
    root = renamed(tmp_path / "d", {"action": "actions", "observation.state": "state", TOP: "image"})
    report = check_dataset(LeRobotFolder(root))
    assert (len(report.schema.action), len(report.schema.agent_pos)) == (2, 3)
    assert report.schema.cameras == ("image",)
    assert "action: is called actions → read as such" in report.table()


def test_any_name_is_mapped_by_choice(tmp_path):
    root = renamed(tmp_path / "d", {"action": "cmd_vel", "observation.state": "obs/joints", TOP: "cam"})
    keys = {"cmd_vel": "action", "obs/joints": "observation.state", "cam": "observation.images.front"}
    folder = open_source(SourceConfig(root=str(root), keys=keys))
    assert folder.names("observation.state") == ("state_0", "state_1", "state_2")
    assert list(folder.sizes) == ["front"]
    assert folder.pixels(folder.episodes[0]).shape[0] == LENGTH
    assert len(folder.low_dim(folder.episodes[0])["action"]) == LENGTH
    # other names are another store
    assert folder.read_options() != LeRobotFolder(write_dataset(tmp_path / "o")).read_options()


def test_what_is_missing_is_guessed_and_what_there_is_is_listed(tmp_path):
    root = renamed(tmp_path / "d", {"action": "robot.action_cmd"})
    with pytest.raises(ValueError, match=r"no 'action'; did you mean data.keys=\{robot.action_cmd: action\}"):
        LeRobotFolder(root)
    root = renamed(tmp_path / "e", {"action": "u"})
    with pytest.raises(ValueError, match=r"no 'action'.* It has: .*observation.state.*\bu\b"):
        LeRobotFolder(root)


def test_a_state_under_another_name_is_pointed_at(tmp_path):
    root = renamed(tmp_path / "d", {"observation.state": "observation.qpos"})
    assert (
        "data.keys={observation.qpos: observation.state} reads it"
        in check_dataset(LeRobotFolder(root)).table()
    )


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"acton": "action"}, "acton is not recorded; did you mean action?"),
        ({"observation.state": "action"}, "records action as well"),
        ({"action": "recorded.a", "observation.state": "recorded.a"}, "two features one name"),
        ({"observation.state": "observation.stat"}, "no name of LeRobot's; did you mean observation.state?"),
        ({"observation.state": "timestamp"}, "no name of LeRobot's. Expected one of action, observation.st"),
        ({TOP: "top"}, "'top' is no name of LeRobot's"),
        ({TOP: "observation.images."}, "is no name of LeRobot's"),
        ({TOP: "observation.images.a/b"}, "is no name of LeRobot's"),
        ({TOP: "recorded."}, "is no name of LeRobot's"),
        ({TOP: ""}, "'' is no name of LeRobot's"),
    ],
)
def test_keys_that_cannot_be_are_refused(tmp_path, keys, what):
    with pytest.raises(ValueError, match=what.replace("?", r"\?")):
        LeRobotFolder(write_dataset(tmp_path / "d", episodes=1), keys=keys)


@pytest.mark.parametrize("video", [False, True])
def test_what_is_set_aside_is_not_read(tmp_path, video):
    """A camera, though where its videos lie is not even listed; and an action for the sake of another."""
    side = "observation.images.side"
    root = write_dataset(
        tmp_path / "d",
        episodes=1,
        video=video,
        features={side: {"dtype": "video", "shape": [32, 48, 3]}, "cmd": VECTOR},
        columns=lambda columns: columns.update(cmd=[[1.0, 2.0]] * LENGTH),
    )
    keys = {side: "recorded.side", "action": "recorded.action", "cmd": "action"}
    folder = LeRobotFolder(root, keys=keys)
    assert list(folder.sizes) == ["top"]
    assert (folder.low_dim(folder.episodes[0])["action"] == [1, 2]).all()
    assert "also recorded: recorded.action, recorded.side" in check_dataset(folder).table()
