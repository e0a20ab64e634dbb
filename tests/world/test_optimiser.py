"""The course of a short training: it ends where its updates or its time do, with its rate come down."""

import itertools

import pytest

from scd_world import optimiser
from scd_world.optimiser import course, lesson


def test_a_lesson_ends_with_its_updates():
    assert list(lesson(4)) == [0.25, 0.5, 0.75, 1.0]


def test_or_with_its_time_and_then_its_rate_has_come_down_too(monkeypatch):
    clock = itertools.count()  # a second per look
    monkeypatch.setattr(optimiser.time, "monotonic", lambda: next(clock))
    done = list(lesson(1000, seconds=8.0))
    assert done == [i / 8 for i in range(1, 9)]
    rates = [course(progress, 0.1, 0.5, 0.02) for progress in done]
    assert max(rates) == 1
    assert rates[-1] == pytest.approx(0.02)
