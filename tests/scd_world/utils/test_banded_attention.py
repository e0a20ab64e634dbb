"""Attention within a band of frames is what a dense mask over all of them gives, in value and in slope."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from scd_world.model.layers import band_mask
from scd_world.utils.banded_attention import banded_attention

FRAMES, TOKENS = 5, 3


@pytest.mark.parametrize("window", [1, 2, FRAMES, 9])
def test_it_equals_attention_under_a_mask(window):
    g = torch.Generator().manual_seed(0)
    shape = 2, 3, FRAMES * TOKENS, 8
    given = [torch.randn(shape, generator=g, requires_grad=True) for _ in range(3)]
    weight = torch.randn(shape, generator=g)
    mask = band_mask(FRAMES, TOKENS, window, torch.device("cpu"))
    ours = banded_attention(*given, FRAMES, window)
    wanted = F.scaled_dot_product_attention(*given, attn_mask=mask)
    torch.testing.assert_close(ours, wanted, atol=1e-6, rtol=1e-5)
    slopes = (torch.autograd.grad((out * weight).sum(), given) for out in (ours, wanted))
    for mine, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_in_bf16_it_strays_no_further_than_the_masked_one():
    g = torch.Generator().manual_seed(1)
    q, k, v = torch.randn(3, 2, 3, FRAMES * TOKENS, 8, generator=g)
    mask = band_mask(FRAMES, TOKENS, FRAMES, torch.device("cpu"))
    exact = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    half = [x.bfloat16() for x in (q, k, v)]
    ours = banded_attention(*half, FRAMES, FRAMES)
    theirs = F.scaled_dot_product_attention(*half, attn_mask=mask)
    assert ours.dtype == torch.bfloat16
    assert (ours - exact).abs().max() <= 1.5 * (theirs - exact).abs().max()
