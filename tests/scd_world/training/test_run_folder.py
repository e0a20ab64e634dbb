"""What a training may go on from, and what it may not."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from scd_world.distill.config import Distillation
from scd_world.training.run_folder import UNKNOWN_TEACHER, check_continuation


def test_a_distillation_goes_on_with_its_own_teacher_or_one_that_format_3_cannot_tell():
    config = Distillation(out="run", teacher="a digest")
    for teacher in ("a digest", UNKNOWN_TEACHER):
        training = {"fingerprint": "f", "config": asdict(config) | {"teacher": teacher}}
        assert check_continuation(training, config, "f", Path("run")) == []
    training = {"fingerprint": "f", "config": asdict(config) | {"teacher": "another digest"}}
    with pytest.raises(ValueError, match=r"holds another training .*teacher: another digest before"):
        check_continuation(training, config, "f", Path("run"))
