"""Whoever imagined a dataset is named, by whichever mark is left."""

import json

import pytest

from scd_datasets.sources.lerobot.imagined_mark import IMAGINED, imagined_by, imagined_robot_type

SHA = "0123456789abcdef" * 4


@pytest.mark.parametrize("robot_type", [None, "so101", "imagined_arm", ""])
def test_what_a_robot_recorded_has_no_mark(tmp_path, robot_type):
    assert imagined_by({"robot_type": robot_type}, tmp_path) is None
    assert imagined_by({}, tmp_path) is None


def test_a_world_is_named_by_its_folder_or_its_name_on_the_hub(tmp_path):
    folder = tmp_path / "mine" / "world"
    folder.mkdir(parents=True)
    for world, name in ((folder, "mine/world"), ("me/pusht@v1", "me/pusht@v1"), ("C:/a/world", "C:/a/world")):
        info = {"robot_type": imagined_robot_type(str(world), SHA)}
        assert imagined_by(info, tmp_path) == f"imagined by the world {name} (sha256 0123456789ab)"


def test_a_dataset_of_an_earlier_version_is_recognised(tmp_path):
    assert (
        imagined_by({"robot_type": "imagined"}, tmp_path) == "imagined by a world that its marks do not name"
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (json.dumps({"world": "/runs/mine/world", "world_sha256": SHA}), "/runs/mine/world"),
        ("{", "mine/world"),
        ("[]", "mine/world"),
        ('{"world": "/runs/mine/world"}', "mine/world"),
    ],
    ids=["whole", "no JSON", "a list", "without its sum"],
)
def test_the_file_says_more_than_the_robot_type_unless_it_is_damaged(tmp_path, text, named):
    (tmp_path / "meta").mkdir()
    (tmp_path / IMAGINED).write_text(text)
    info = {"robot_type": imagined_robot_type("mine/world", SHA)}
    assert imagined_by(info, tmp_path) == f"imagined by the world {named} (sha256 0123456789ab)"
    assert imagined_by({}, tmp_path).startswith("imagined by ")
