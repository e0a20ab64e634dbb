"""Known objects are followed through frames, each by itself and those before it, and kept on disk."""

import pytest
import torch
from scene import picture, recording, scenes_of, table
from test_pose import l_shape

from scd_world.objects.expected import Recorded, middle
from scd_world.objects.finder import KnownObject, ObjectFinder
from scd_world.objects.track import numbers, pose_of

STEPS = 12


def path(seed: int = 0) -> torch.Tensor:
    """(T, 3): an L that is pushed across the table and turned."""
    t = torch.arange(STEPS) / STEPS
    return torch.stack([14 + 18 * t, 30 - 12 * t + seed, 0.3 + 1.5 * t], 1)


def film(poses: torch.Tensor, hidden: range = range(0)) -> torch.Tensor:
    """uint8 (T, V=1, H, W, 3); where it is hidden, the table alone."""
    frames = [picture([] if i in hidden else [("L", pose)]) for i, pose in enumerate(poses)]
    return torch.stack(frames)[:, None].movedim(2, -1)


@pytest.fixture
def finder() -> ObjectFinder:
    return ObjectFinder(table()[None], [KnownObject(0, l_shape())])


def test_it_is_followed_to_a_small_part_of_a_pixel(finder):
    found = finder.find(film(path())[None].unbind(1))
    assert found.shape == (1, STEPS, 4)
    assert (finder.poses(found)[0][0] - path()).abs().max() < 0.15


def test_what_comes_later_changes_nothing(finder):
    frames = film(path())
    whole = finder.find(frames[None].unbind(1))
    other = frames.clone()
    other[6:] = frames[:6]
    assert torch.equal(finder.find(other[None].unbind(1))[:, :6], whole[:, :6])


def test_each_recording_is_by_itself_and_the_shorter_ones_end(finder):
    first, second = film(path()), film(path(3))
    frames = [
        torch.stack([a, b]) if t < 7 else a[None] for t, (a, b) in enumerate(zip(first, second, strict=True))
    ]
    found = finder.find(frames)
    assert torch.allclose(found[0], finder.find(first[None].unbind(1))[0], atol=1e-4)
    assert torch.allclose(found[1, :7], finder.find(second[None, :7].unbind(1))[0], atol=1e-4)
    assert found[1, 7:].isnan().all()


def test_what_is_hidden_stays_where_it_was_and_is_found_again(finder):
    found = finder.find(film(path(), range(5, 8))[None].unbind(1))
    pose = finder.poses(found)[0][0]
    assert torch.equal(pose[5:8], pose[4].expand(3, -1))
    assert (pose[8:] - path()[8:]).abs().max() < 0.15


def test_numbers_and_poses_are_the_same():
    sprite = l_shape()
    assert torch.allclose(pose_of(sprite, numbers(sprite, path())), path(), atol=1e-4)
    still = l_shape(turns=False)
    assert numbers(still, path()).shape == (STEPS, 2)


def test_what_is_known_goes_to_disk_and_comes_back(finder):
    other = ObjectFinder(torch.zeros(1, 3, 48, 48), [])
    other.load_state_dict(finder.state_dict())
    frames = film(path())[None]
    assert torch.equal(other.find(frames.unbind(1)), finder.find(frames.unbind(1)))
    assert other.names(["top"]) == tuple(
        f"top object 0 {point} {axis}" for point in ("middle", "tip") for axis in ("row", "column")
    )


def test_weights_of_something_else_are_refused(finder):
    other = ObjectFinder(torch.zeros(1, 3, 32, 48), [])
    with pytest.raises(RuntimeError, match="background"):
        other.load_state_dict(finder.state_dict())


# ---- what is expected without the objects ---------------------------------------------------------------


def test_the_robot_is_expected_where_its_state_says_and_nothing_else():
    frames, state, episode, _ = recording(400, 5)
    scenes, _ = scenes_of(frames, state, episode)
    _, robots_alone, _, _ = recording(400, 5)
    robot = torch.stack([picture([("robot", torch.tensor([*s, 0.0]))]) for s in robots_alone * 48 / 4])
    wrong = ((scenes.expected + 1) * 127.5 - robot).abs().amax(1) > 60
    assert wrong.float().mean() < 0.02  # of the pixels: edges of a robot that stood nearly there
    inside = (robot != picture([])).any(1)
    assert scenes.robot[:, 0][inside].float().mean() > 0.7


def test_without_a_state_the_background_is_expected():
    frames, _, episode, _ = recording(60, 5)
    recorded = Recorded(frames, torch.zeros(60, 0), episode, frames.median(0).values)
    scenes = recorded.scenes(frames, torch.zeros(60, 0), episode)
    assert len(scenes.expected) == 1
    assert not scenes.robot.any()
    assert recorded.tells(torch.zeros(60, 0), episode, torch.rand(60, 2)) == 0


def test_the_middle_of_three():
    values = torch.randint(0, 256, (3, 500), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(middle(*values), values.sort(0).values[1])


@pytest.mark.parametrize("others", [0, 3])
def test_where_no_other_recording_says_so_no_robot_is_expected(others):
    """Frames of its own were taken for those of others."""
    frames, state, _, _ = recording(60, 5)
    state, episode = torch.as_tensor(state, dtype=torch.float32), torch.zeros(60, dtype=torch.long)
    episode[60 - others :] = 1
    recorded = Recorded(frames, state, episode, frames.median(0).values)
    robot = recorded.scenes(frames, state, episode).robot.expand(60, -1, -1, -1)
    assert not robot[episode == 0].any()
    assert recorded.tells(state, episode, torch.rand(60, 2)) == 0
