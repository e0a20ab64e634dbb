"""Names and sizes as datasets in the wild have them."""

from dataclasses import replace

import pytest

from scd_datasets.sources.lerobot.features import Feature, camera_keys, dim_names

VIDEO = Feature("top", "video", (3, 48, 64))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["shoulder", "wrist"], ("shoulder", "wrist")),
        ({"motors": ["shoulder", "wrist"]}, ("shoulder", "wrist")),
        ({"shoulder": 0, "wrist": 1}, ("shoulder", "wrist")),
        ({"wrist": 1, "shoulder": 0}, ("shoulder", "wrist")),  # by number, whatever the order they stand in
        ([["shoulder", "wrist"]], ("shoulder", "wrist")),  # Unitree's
        ({"axes": {"wrist": 1, "shoulder": 0}}, ("shoulder", "wrist")),
        ({"left": ["gripper"], "right": ["gripper"]}, ("left.gripper", "right.gripper")),
        (["gripper", "gripper"], ("gripper", "gripper_2")),
        (["a", "a_2", "a", "a"], ("a", "a_2", "a_3", "a_4")),
        ([["one", "of"], ["too", "many"]], ("state_0", "state_1")),
        (["three", "names", "for two"], ("state_0", "state_1")),
        (None, ("state_0", "state_1")),
    ],
)
def test_every_number_has_a_name(names, expected):
    assert dim_names("observation.state", Feature("s", "float32", (len(expected),), names)) == expected


def test_many_equal_names_take_no_time():
    names = dim_names("action", Feature("a", "float32", (65_536,), ["a"] * 65_536))
    assert (names[:2], names[-1], len(set(names))) == (("a", "a_2"), "a_65536", 65_536)


def test_images_come_channels_first_or_last():
    for shape in ((3, 48, 64), (48, 64, 3), (1, 48, 64), (48, 64, 1)):
        assert Feature("top", "video", shape).image_size == (48, 64)


def test_depth_is_not_a_camera():
    depth = replace(VIDEO, is_depth=True)
    features = {
        "observation.images.top": VIDEO,
        "observation.images.depth": depth,
        "observation.image": VIDEO,
    }
    assert camera_keys(features, []) == {"top": "observation.images.top", "image": "observation.image"}
    assert list(camera_keys(features, ["image", "top"])) == ["image", "top"]


def test_two_cameras_that_would_have_one_name_keep_their_keys():
    keys = ["observation.image", "observation.images.image"]
    assert camera_keys(dict.fromkeys(keys, VIDEO), []) == {key: key for key in keys}
