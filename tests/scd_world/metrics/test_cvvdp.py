"""ColorVideoVDP: named with its cure where it is missing; where it is there, worse videos get less."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from scd_world.metrics.cvvdp import load_cvvdp, report_quality, video_quality

CPU = torch.device("cpu")


def test_a_missing_package_is_named_with_its_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycvvdp", None)
    with pytest.raises(ValueError, match=r"cvvdp=true needs an extra: pip install .*\[perceptual\]"):
        load_cvvdp(CPU)


def test_equal_videos_have_ten_and_noisy_ones_less():
    pytest.importorskip("pycvvdp", reason="ColorVideoVDP is an extra: pip install '.[perceptual]'")
    metric, rng = load_cvvdp(CPU), np.random.default_rng(0)
    coarse = rng.integers(40, 216, (2, 4, 2, 6, 8, 3)).repeat(8, 3).repeat(8, 4)
    true, little, much = (
        torch.from_numpy((coarse + rng.normal(0, level, coarse.shape)).clip(0, 255).astype(np.uint8))
        for level in (0, 10, 40)
    )
    values = [video_quality(metric, [(true, video)], fps=10) for video in (true, little, much)]
    assert values[0] == pytest.approx(10)
    assert values[0] > values[1] + 0.1 > values[2] + 0.2
    report = report_quality(metric, [(true, little)], [(true, much)], 10)
    assert (report["value"], report["value_copy"]) == (values[1], values[2])
    assert "2 videos of 4 imagined frames" in report["what"]
