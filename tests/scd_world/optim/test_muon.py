"""Muon's step: that of torch's own, in a precision that the machine is fast in."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scd_world.optim.muon import Muon, orthogonal


def test_its_steps_are_those_of_torchs_own():
    """Tall, wide and square, several updates. torch's multiplies in bf16: equal to about a hundredth."""
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in ((24, 12), (12, 24), (12, 24), (16, 16))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    start = [p.detach().clone() for p in ours]
    mine, reference = Muon(ours, lr=0.1), torch.optim.Muon(theirs, lr=0.1, momentum=0.95, weight_decay=0.0)
    for _ in range(4):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        mine.step()
        reference.step()
    for p, q, first in zip(ours, theirs, start, strict=True):
        assert (p - q).norm() < 0.03 * (q - first).norm()


def test_its_step_is_about_as_long_in_all_directions():
    u, _, v = torch.linalg.svd(torch.randn(3, 8, 20), full_matrices=False)
    scales = torch.logspace(0, -2, 8)  # one direction a hundred times as strong as another
    found = torch.linalg.svdvals(orthogonal(u * scales @ v))
    assert found.min() > 0.5
    assert found.max() < 1.3


def test_what_is_no_matrix_is_refused():
    with pytest.raises(ValueError, match=r"Muon steps matrices; got shapes \[\(4,\)\]"):
        Muon([nn.Parameter(torch.zeros(4))], lr=0.1)
