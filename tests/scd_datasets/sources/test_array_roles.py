"""Which array is what: by name, or as the user says; a slip of the user's is answered with what was meant."""

import numpy as np
import pytest

from scd_datasets.sources.array_roles import (
    choose_low_dim,
    dim_labels,
    find_cameras,
    merged,
    open_camera,
    picture_findings,
    proprioception,
)

ARRAYS = {
    "obs/robot0_eef_pos": np.zeros((6, 3)),
    "obs/robot0_gripper_qpos": np.zeros((6, 2)),
    "obs/object": np.zeros((6, 10)),
    "actions": np.zeros((6, 7)),
    "label": np.array(["a"] * 6),
    "obs/top": np.zeros((6, 16, 24, 3), np.uint8),
    "obs/top_depth": np.zeros((6, 16, 24, 1), np.float32),
}
USUAL = {"action": ("actions",), "observation.state": ("obs/robot0_eef_pos",), "next.reward": ("rewards",)}


def test_a_robots_poses_are_found_in_order_robot_by_robot():
    names = ["object", "robot1_eef_pos", "robot0_gripper_qpos", "robot0_joint_vel", "robot0_joint_pos_cos"]
    names += ["robot0_eef_quat", "robot0_eef_pos", "mug_to_robot0_eef_pos", "obs/robot0_joint_pos"]
    found = [
        "obs/robot0_joint_pos",
        "robot0_eef_pos",
        "robot0_eef_quat",
        "robot0_gripper_qpos",
        "robot1_eef_pos",
    ]
    assert proprioception(names) == found
    umi = ["robot0_demo_end_pose", "robot0_gripper_width", "robot0_eef_rot_axis_angle", "robot0_eef_pos"]
    assert proprioception(umi) == umi[:0:-1]
    assert proprioception(["robot_eef_pose", "robot_eef_pose_vel", "robot_joint"]) == [
        "robot_joint",
        "robot_eef_pose",
    ]


def test_the_users_word_stands_above_the_usual():
    assert choose_low_dim(ARRAYS, USUAL, {}, "here") == {
        "action": ("actions",),
        "observation.state": ("obs/robot0_eef_pos",),
    }
    keys = {"obs/robot0_gripper_qpos": "observation.state", "obs/robot0_eef_pos": "observation.state"}
    chosen = choose_low_dim(ARRAYS, USUAL, keys, "here")
    assert chosen["observation.state"] == tuple(keys)  # in the order given
    moved = choose_low_dim(ARRAYS, USUAL, {"obs/robot0_eef_pos": "observation.environment_state"}, "here")
    assert "observation.state" not in moved


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        (
            {"obs/robot_eef_pos": "observation.state"},
            "obs/robot_eef_pos is not recorded in here; did you mean obs/robot0_eef_pos",
        ),
        (
            {"actions": "actions"},
            "'actions' is no name of LeRobot's; did you mean action.? Expected one of action, obs",
        ),
        ({"obs/top": "observation.images."}, "is no name of LeRobot's"),
        ({"obs/top": "observation.images.a/b"}, "is no name of LeRobot's"),
        ({"obs/top": "recorded."}, "is no name of LeRobot's"),
        ({"label": "observation.state"}, "label is <U1; expected integers, floats or bool"),
    ],
)
def test_slips_are_answered(keys, what):
    with pytest.raises(ValueError, match=what):
        choose_low_dim(ARRAYS, USUAL, keys, "here")


def test_cameras_are_named_chosen_and_left_out():
    usual = {"obs/top": "top", "obs/top_depth": "top_depth", "obs/object": "object"}
    found, left_out = find_cameras(ARRAYS, usual, {}, (), "here")
    assert found == {"top": "obs/top"}
    assert [(one.where, one.done) for one in left_out] == [("obs/top_depth", "left out")]
    assert find_cameras(ARRAYS, usual, {"obs/top": "observation.images.front"}, ["front"], "here")[0] == {
        "front": "obs/top"
    }
    assert find_cameras(ARRAYS, usual, {"obs/top": "observation.image"}, (), "here")[0] == {
        "image": "obs/top"
    }
    with pytest.raises(
        ValueError, match=r"obs/top_depth float32 \(6, 16, 24, 1\) is depth; a camera is uint8"
    ):
        find_cameras(ARRAYS, usual, {}, ["top_depth"], "here")
    with pytest.raises(ValueError, match="no camera called side; the dataset has top"):
        find_cameras(ARRAYS, usual, {}, ["side"], "here")
    with pytest.raises(ValueError, match="both called top"):
        find_cameras(ARRAYS | {"a/top": ARRAYS["obs/top"]}, usual | {"a/top": "top"}, {}, (), "here")


def test_what_is_set_aside_is_not_read():
    keys = {"obs/robot0_eef_pos": "recorded.pose", "obs/top": "recorded.obs/top"}
    assert choose_low_dim(ARRAYS, USUAL, keys, "here") == {"action": ("actions",)}
    assert find_cameras(ARRAYS, {"obs/top": "top"}, keys, (), "here") == ({}, [])


def test_what_is_unusual_in_a_camera_is_said():
    frames = np.linspace(0, 1, 9 * 16 * 24 * 3).reshape(9, 16, 24, 3)
    camera = open_camera(frames, "img", "here")
    assert (camera.size, camera.scale) == ((16, 24), 255)
    assert picture_findings([camera])[0].done == "read as gray levels of 1/255"
    with pytest.raises(ValueError, match=r"here: img holds values from -1 .*leave it out: data.cameras=\["):
        open_camera(frames - 1, "img", "here")


def test_dimensions_are_named_and_lie_side_by_side():
    assert dim_labels("observation.state", {"obs/x": ARRAYS["obs/robot0_eef_pos"]}) == (
        "state_0",
        "state_1",
        "state_2",
    )
    two = {"obs/a": np.zeros((6, 2)), "obs/b": np.zeros(6)}
    assert dim_labels("observation.state", two) == ("a_0", "a_1", "b")
    assert dim_labels("action", {"left/a": two["obs/b"], "right/a": two["obs/b"]}) == ("left/a", "right/a")
    assert merged([np.ones((5, 2)), np.zeros(4)]).tolist() == [[1, 1, 0]] * 4
