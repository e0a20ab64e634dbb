"""What an array's pictures are is told before anything is cast: no depth turns white, no float black."""

import numpy as np
import pytest

from scd_datasets.sources.picture_kind import frame_layout, picture_kind, to_rgb, value_scale


@pytest.mark.parametrize(
    ("dtype", "shape", "name", "kind"),
    [
        ("uint8", (16, 24, 3), "", "rgb"),
        ("uint8", (3, 16, 24), "", "rgb"),
        ("float32", (16, 24, 3), "", "rgb"),
        ("uint8", (16, 24, 4), "", "rgba"),
        ("uint8", (16, 24), "", "gray"),
        ("uint8", (16, 24, 1), "", "gray"),
        ("uint16", (16, 24), "", "depth"),
        ("float32", (16, 24, 1), "", "depth"),
        ("float32", (16, 24), "front_depth", "depth"),
        ("uint8", (16, 24, 3), "obs/agentview_depth", "depth"),
        ("int32", (16, 24, 1), "", "labels"),
        ("uint8", (16, 24, 1), "front_segmentation_instance", "labels"),
        ("bool", (16, 24), "", "labels"),
        ("float32", (9, 2), "keypoint", None),
        ("float32", (64, 64), "tactile", None),  # may be anything
        ("float32", (512, 3), "point_cloud", None),
        ("float32", (2, 4, 4), "poses", None),
        ("uint8", (40000,), "", None),
    ],
)
def test_kinds(dtype, shape, name, kind):
    assert picture_kind(dtype, shape, name) == kind


def test_where_the_channels_are():
    assert frame_layout((16, 24, 3)) == frame_layout((3, 16, 24)) == (16, 24, 3)
    assert frame_layout((16, 24)) == (16, 24, 1)
    assert frame_layout((16, 24, 7)) is None


def test_the_scale_is_that_of_all_frames():
    """A dark frame of a camera of 0…255 is no frame of 0…1."""
    dark, bright = np.full((4, 4), 1.0), np.full((4, 4), 200.0)
    assert value_scale([dark]) == 255
    assert value_scale([dark, bright]) == 1
    assert value_scale([dark.astype(np.uint8)]) == value_scale([np.zeros((4, 4))]) == value_scale([]) == 1
    for value, cure in {
        -1.0: r"127.5 \(x \+ 1\)",
        65535.0: "divided by 257",
        np.nan: "store them as uint8",
    }.items():
        with pytest.raises(ValueError, match=cure):
            value_scale([np.full((4, 4), value), bright])


@pytest.mark.parametrize("axis", [-1, 1])
def test_channels_come_last_and_floats_become_levels(axis):
    colors = np.random.default_rng(0).integers(0, 256, (5, 16, 24, 3), np.uint8)
    stored = np.moveaxis(colors, -1, axis)
    assert np.array_equal(to_rgb(stored), colors)
    assert np.array_equal(to_rgb(stored / np.float32(255), scale=255), colors)
    assert np.array_equal(to_rgb(stored.astype(np.int64)), colors)


def test_what_rounding_forgives_does_not_wrap_around():
    """A resized float picture overshoots a little; 256 as uint8 would be 0."""
    assert to_rgb(np.full((1, 8, 8, 3), 1.0019), scale=255).max() == 255
    assert to_rgb(np.full((1, 8, 8, 3), -0.001), scale=255).max() == 0
    assert to_rgb(np.full((1, 8, 8, 3), 255.5)).min() == 255


def test_gray_and_alpha():
    gray = np.arange(2 * 16 * 24, dtype=np.uint8).reshape(2, 16, 24)
    for stored in (gray, gray[..., None], gray[:, None]):
        assert np.array_equal(to_rgb(stored), np.stack([gray] * 3, -1))
    assert np.array_equal(to_rgb(np.stack([gray] * 4, -1)), np.stack([gray] * 3, -1))


def test_frames_that_are_not_as_the_sample_was_are_refused():
    with pytest.raises(ValueError, match="holds values from 3 to 3, expected gray levels"):
        to_rgb(np.full((2, 16, 24, 3), 3.0), scale=255)
    with pytest.raises(ValueError, match="multiply these by 255"):
        to_rgb(np.full((2, 16, 24, 3), 0.5), scale=1)
