"""Reward and success are scored step by step, each against its own record."""

from __future__ import annotations

import numpy as np
import pytest

from scd_world.evaluation.outcome_prediction import OutcomePredictions, score
from scd_world.metrics.statistics import reliability


def predictions(success: list[float], observed: list[bool]) -> OutcomePredictions:
    n = len(observed)
    true_reward = np.linspace(0, 1, n)
    return OutcomePredictions(
        np.arange(n) // 2, 0.5 * true_reward + 0.25, true_reward, np.array(success), np.array(observed)
    )


def test_calibration_by_hand():
    outcomes = predictions([0.9, 0.8, 0.05, 0.6, 0.15, 0.0], [True, True, False, False, False, True])
    scores = score(outcomes, True, True)
    success = scores["success"]
    assert success["positives"] == 3
    assert success["recall"] == pytest.approx(2 / 3)
    assert success["false_alarms"] == 1
    assert success["episode_accuracy"] == pytest.approx(1 / 3)  # the first; one false alarm, one missed
    assert success["brier_constant"] == pytest.approx(0.25)
    assert scores["reward"]["slope"] == pytest.approx(2)
    assert scores["reward"]["correlation"] == pytest.approx(1)


def test_what_is_observed_as_often_as_predicted_has_no_calibration_error():
    score = np.repeat([0.25, 0.75], 4)
    label = np.array([1, 0, 0, 0, 1, 1, 1, 0], bool)
    bins = reliability(score, label)
    assert bins["error"] == 0
    assert bins["predicted"] == bins["observed"] == [0.25, 0.75]
    assert reliability(score, ~label)["error"] == pytest.approx(0.5)
