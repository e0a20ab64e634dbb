"""The one size that all cameras come in."""

import pytest

from scd_datasets.sources.images import common_size


@pytest.mark.parametrize(
    ("sizes", "shorter", "expected"),
    [
        ([(480, 640), (96, 128)], None, (96, 128)),  # the smallest camera's
        ([(720, 1280)], 96, (96, 176)),  # 170.7, to a multiple of 16
        ([(640, 480)], 96, (128, 96)),
        ([(96, 96)], 96, (96, 96)),
        ([(160, 240)], None, (160, 240)),
        ([(480, 640)], None, (96, 128)),  # nobody learns from half a thousand tokens unless told to
        ([(480, 640)], 480, (480, 640)),
    ],
)
def test_all_cameras_come_in_one_size(sizes, shorter, expected):
    assert common_size(sizes, shorter) == expected
