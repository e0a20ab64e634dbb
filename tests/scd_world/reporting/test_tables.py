"""Numbers in tables: of a known scale with fixed decimals, in the data's units with significant digits."""

from __future__ import annotations

import math

import pytest

from scd_world.reporting.tables import number, signed, significant
from scd_world.reporting.units import UNKNOWN, unit_of


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00123, "0.00123"),  # a radian's error: two decimals made it 0.00
        (0.000012, "1.20e-05"),
        (3.14159, "3.14"),
        (-0.5, "-0.500"),
        (99.96, "100"),
        (41234.6, "41235"),
        (0, "0"),
        (-0.0, "0"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_significant_digits_whatever_the_unit(value, text):
    assert significant(value) == text


def test_a_change_has_its_sign():
    assert [signed(x) for x in (0.6, -0.0123, 0, None)] == ["+0.600", "-0.0123", "0", "–"]


def test_zero_has_no_sign():
    assert (number(-0.0004), number(-0.4, 1), number(math.inf)) == ("0.00", "-0.4", "–")


@pytest.mark.parametrize(
    ("names", "unit"),
    [
        (("elbow_rad", "wrist.rad"), "rad"),
        (("x (mm)", "y [mm]"), "mm"),
        (("x_px", "angle_deg"), UNKNOWN),  # two units in one distance are none
        (("shoulder_pan.pos",), UNKNOWN),
        (("position[0]", "position[1]"), UNKNOWN),
        ((), UNKNOWN),
    ],
)
def test_a_unit_is_named_where_names_tell_it(names, unit):
    assert unit_of(names) == unit
