"""Images are labeled tables of the right size; videos open again, frame for frame."""

from __future__ import annotations

import av
import numpy as np
import pytest
from PIL import Image

from scd_world.reporting import video


def random_video(frames: int = 5, cameras: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, cameras, 16, 24, 3), np.uint8)


def test_cameras_stand_side_by_side():
    frames = random_video(cameras=2)
    wide = video.side_by_cameras(frames)
    assert wide.shape == (5, 16, 48, 3)
    np.testing.assert_array_equal(wide[2, :, 24:], frames[2, 1])


def test_difference_is_white_where_nothing_differs_and_dark_where_much_does():
    a, b = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)
    b[0, 0] = 200
    d = video.difference(a, b)
    assert (d[1:] == 255).all()
    assert d[0, 0].astype(int).sum() < 100
    np.testing.assert_array_equal(d, video.difference(b, a))  # no unsigned wrap-around


def test_a_videos_images_have_even_sides_and_hold_the_frames():
    images = video.compare(
        [random_video(5), random_video(3)],
        [random_video(5, seed=1), random_video(3, seed=2)],
        2,
        ["a", "b"],
        height=32,
    )
    assert len(images) == 5  # the shorter episode stays on its last frame
    assert {p.shape for p in images} == {images[0].shape}
    assert not any(n % 2 for n in images[0].shape[:2])
    enlarged = video.enlarge(random_video(5)[4, 0], 32)
    assert contains(images[4], enlarged)


def contains(image: np.ndarray, part: np.ndarray) -> bool:
    h, w = part.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(image, (h, w, 3))[:, :, 0]
    return bool((windows[:, :, 0, 0] == part[0, 0]).all(-1).any()) and any(
        np.array_equal(windows[y, x], part)
        for y, x in np.argwhere((windows[:, :, 0, 0] == part[0, 0]).all(-1))
    )


def test_the_strips_columns_are_the_asked_horizons():
    true, imagined = random_video(10), random_video(10, seed=1)
    image = video.strip(true, imagined, context=3, horizons=[1, 4], height=16)
    for shown in (true[2], true[3], true[6], imagined[3], imagined[6]):
        assert contains(image, shown[0])
    assert not contains(image, true[4, 0])


@pytest.mark.parametrize("fps", [10, 29.97, 0.5])
def test_mp4_opens_again(tmp_path, fps):
    images = [np.full((33, 40, 3), 40 * i, np.uint8) for i in range(6)]  # an odd height loses a row
    video.write_mp4(tmp_path / "video.mp4", images, fps=fps)
    with av.open(str(tmp_path / "video.mp4")) as container:
        assert container.streams.video[0].average_rate == pytest.approx(fps)
        read = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(read) == 6
    assert read[0].shape == (32, 40, 3)
    assert all(abs(float(frame.mean()) - 40 * i) < 6 for i, frame in enumerate(read))


@pytest.mark.parametrize("ending", [".gif", ".webp"])
def test_animations_loop_for_ever(tmp_path, ending):
    images = [np.full((20, 30, 3), 60 * i, np.uint8) for i in range(4)]
    video.write_animation(tmp_path / f"video{ending}", images, fps=10)
    with Image.open(tmp_path / f"video{ending}") as image:
        assert (image.n_frames, image.size) == (4, (30, 20))
        assert image.info["loop"] == 0


def test_an_animation_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.webp or \.gif"):
        video.write_animation(tmp_path / "video.avi", [np.zeros((2, 2, 3), np.uint8)], fps=10)
