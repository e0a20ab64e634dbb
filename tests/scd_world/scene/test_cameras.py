"""A camera goes where a chain of joints puts it, and sees from there what was shown."""

from __future__ import annotations

import torch
from torch import Tensor

from scd_world.model.prior import UNSEEN, Scene
from scd_world.scene.cameras import FOCAL_LENGTH, RidingCameras, exp, image_points

G = torch.Generator().manual_seed(0)


def shown_at(cameras: RidingCameras, state: Tensor, still: Tensor, height: float = 0.0) -> Scene:
    flat = torch.full_like(still[:, : len(cameras.moves)], height)
    return Scene(state[:, :0], cameras.poses(state, state), flat, still)


def test_the_exponential_map_is_that_of_matrices():
    """Of turns by nothing, by little and by more than half, with gradients everywhere."""
    twist = torch.randn(5, 6, generator=G) * torch.tensor([0.0, 1e-5, 1e-2, 1.0, 3.0])[:, None]
    twist.requires_grad_(True)
    turn, shift = twist.detach().double().tensor_split([3], dim=-1)
    matrix = torch.zeros(5, 4, 4, dtype=torch.float64)
    matrix[:, :3, 3] = shift
    for row, column, axis in ((2, 1, 0), (0, 2, 1), (1, 0, 2)):
        matrix[:, row, column], matrix[:, column, row] = turn[:, axis], -turn[:, axis]
    moved = exp(twist)
    torch.testing.assert_close(moved.double(), torch.matrix_exp(matrix)[:, :3], atol=2e-6, rtol=0)
    moved.sum().backward()
    assert torch.isfinite(twist.grad).all()
    assert twist.grad[0].abs().sum() > 0


def test_a_point_is_looked_for_where_it_was_seen():
    """Of a chain of three joints, over the plane and under it; drawn by hand with a pinhole's equations."""
    torch.manual_seed(1)
    cameras = RidingCameras(3, 1).requires_grad_(False)
    cameras.set_moves(torch.ones(1))
    cameras.twists.copy_(0.15 * torch.randn(1, 3, 6))
    cameras.normal.copy_(torch.tensor([[0.1, -0.05, 1.0]]))
    cameras.center.copy_(torch.tensor([[0.05, -0.02]]))
    now, then = 0.5 * torch.randn(2, 1, 3)
    H, W, height = 48, 64, 0.3
    scene = shown_at(cameras, then, torch.zeros(1, 3, H, W), height)
    where = cameras.look_back(scene, now, now)[0, 0].unflatten(-1, (H, W))

    def image_of(point: Tensor, state: Tensor) -> Tensor:
        pose = torch.eye(4)
        for twist, angle in zip(cameras.twists[0], state[0], strict=True):
            factor = torch.eye(4)
            factor[:3] = exp(twist * angle)
            pose = pose @ factor
        x, y, z = pose[:3, :3].T @ (point - pose[:3, 3])
        x, y = FOCAL_LENGTH * x / z + 0.05, FOCAL_LENGTH * y / z - 0.02
        return torch.stack([x, y * W / H])

    tried = 0
    for _ in range(50):
        x, y = 0.8 * torch.rand(2, generator=G) - 0.4
        point = torch.stack([x, y, (1 - height - 0.1 * x + 0.05 * y)])
        place = image_of(point, now)
        if (place.abs() < 0.9).all():
            looked = torch.nn.functional.grid_sample(where[None], place.view(1, 1, 1, 2), align_corners=False)
            torch.testing.assert_close(looked.flatten(), image_of(point, then), atol=2e-3, rtol=0)
            tried += 1
    assert tried > 10


def test_what_was_shown_is_followed_by_cameras_that_ride_alone():
    """The second of two looks two cells further to the right now; nothing is known of where it did not."""
    cameras = RidingCameras(1, 2).requires_grad_(False)
    cameras.set_moves(torch.tensor([0.0, 1.0]))
    cameras.twists[:, 0, 3] = 2 * (2 / 8) / FOCAL_LENGTH  # of both, to the right
    shown, now = torch.zeros(1, 1), torch.ones(1, 1)
    frames = torch.rand(1, 2, 6, 8, 8, generator=G)
    scene = shown_at(cameras, shown, frames[:, 0])
    followed = cameras.follow(frames.unbind(1), where := cameras.look_back(scene, now, now))
    assert (followed[:, :, :3] == UNSEEN).all()
    torch.testing.assert_close(followed[:, :, 3:, :, :6], frames[:, :, 3:, :, 2:])
    assert (followed[:, :, 3:, :, 6:] == UNSEEN).all()
    seen = cameras.seen_at(where, scene, torch.full((1, 6, 8, 8), 0.5))
    torch.testing.assert_close(seen[:, :3], frames[:, 0, :3])
    torch.testing.assert_close(seen[:, 3:, :, :6], followed[:, 0, 3:, :, :6])
    assert (seen[:, 3:, :, 6:] == 0.5).all()


def test_what_is_near_moves_by_more():
    """Half as far away, twice as far in the image; what is as far as the plane, as the plane."""
    cameras = RidingCameras(1, 1).requires_grad_(False)
    cameras.set_moves(torch.ones(1))
    cameras.twists[0, 0, 3] = 0.1
    shown, now, still = torch.zeros(1, 1), torch.ones(1, 1), torch.zeros(1, 3, 8, 8)
    for height, times in ((0.0, 1.0), (0.5, 2.0)):
        where = cameras.look_back(shown_at(cameras, shown, still, height), now, now)
        apart = (where[0, 0] - image_points(8, 8)).T
        expected = torch.tensor([0.1 * FOCAL_LENGTH * times, 0.0]).expand_as(apart)
        torch.testing.assert_close(apart, expected, atol=1e-5, rtol=0)


def test_a_picture_is_of_where_the_camera_was_before():
    cameras = RidingCameras(2, 1).requires_grad_(False)
    cameras.set_moves(torch.ones(1))
    cameras.twists.normal_(generator=G)
    state, last = torch.randn(2, 1, 2, generator=G)
    cameras.lag.fill_(0.25)
    between = state + 0.25 * (last - state)
    torch.testing.assert_close(cameras.poses(state, last), cameras.poses(between, between))
    cameras.lag.zero_()
    assert not torch.allclose(cameras.poses(state, last), cameras.poses(between, between))


def test_a_frame_is_carried_to_where_the_camera_goes_and_stays_where_it_did_not_look():
    cameras = RidingCameras(1, 2).requires_grad_(False)
    cameras.set_moves(torch.tensor([0.0, 1.0]))
    cameras.twists[:, 0, 3] = 2 * (2 / 8) / FOCAL_LENGTH
    frame = torch.rand(1, 6, 8, 8, generator=G)
    now = torch.ones(1, 1)
    where = cameras.look_back(shown_at(cameras, torch.zeros(1, 1), frame), now, now)
    carried = cameras.carry(frame, where)
    torch.testing.assert_close(carried[:, :3], frame[:, :3])
    torch.testing.assert_close(carried[:, 3:, :, :6], frame[:, 3:, :, 2:])
    torch.testing.assert_close(carried[:, 3:, :, 6:], frame[:, 3:, :, 6:])


def test_half_precision_puts_no_camera_elsewhere():
    cameras = RidingCameras(3, 1).requires_grad_(False)
    cameras.set_moves(torch.ones(1))
    cameras.twists.normal_(generator=G)
    state, still = torch.randn(2, 3, generator=G), torch.rand(2, 3, 8, 8, generator=G)
    where = cameras.look_back(shown_at(cameras, -state, still), state, state)
    with torch.autocast("cpu", torch.bfloat16):
        again = cameras.look_back(shown_at(cameras, -state, still), state, state)
    assert torch.equal(again, where)


def test_a_camera_below_what_it_looks_at_sees_nothing():
    """All its rays would end where it is, in one place of the image that was shown."""
    cameras = RidingCameras(1, 1).requires_grad_(False)
    cameras.set_moves(torch.ones(1))
    cameras.twists[0, 0, 5] = 1.0  # ahead: at 1 it is in the plane
    frame = torch.rand(1, 3, 8, 8, generator=G)
    scene = shown_at(cameras, torch.zeros(1, 1), frame)
    for ahead, seen in ((0.5, True), (1.5, False)):
        now = torch.full((1, 1), ahead)
        looked = cameras.looked_up(frame[:, None], cameras.look_back(scene, now, now))[1]
        assert looked.all() if seen else not looked.any()


def test_where_all_is_flat_one_look_is_enough():
    torch.manual_seed(2)
    cameras = RidingCameras(3, 2).requires_grad_(False)
    cameras.set_moves(torch.ones(2))
    cameras.twists.copy_(0.15 * torch.randn(2, 3, 6))
    now, then = 0.5 * torch.randn(2, 4, 3)
    scene = shown_at(cameras, then, torch.zeros(4, 6, 12, 16))
    assert torch.equal(cameras.look_back(scene, now, now, 1), cameras.look_back(scene, now, now))
