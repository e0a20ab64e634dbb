"""bf16 where the hardware has it; who asks for it elsewhere is warned of what that costs."""

from __future__ import annotations

import warnings

import pytest
import torch

from scd_world.utils import precision
from scd_world.utils.precision import use_bf16

CPU = torch.device("cpu")


@pytest.mark.parametrize("fast", [False, True])
def test_auto_is_what_the_hardware_does(monkeypatch, fast):
    monkeypatch.setattr(precision, "multiplies_bf16", lambda device: fast)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert use_bf16("auto", CPU) is fast
        assert use_bf16("fp32", CPU) is False


def test_who_asks_for_emulated_bf16_gets_it_with_a_warning(monkeypatch):
    monkeypatch.setattr(precision, "multiplies_bf16", lambda device: False)
    with pytest.warns(RuntimeWarning, match="emulates it, many times slower"):
        assert use_bf16("bf16", CPU) is True
