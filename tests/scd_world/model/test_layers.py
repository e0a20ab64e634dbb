"""What a block leaves out where nobody reads it changes nothing of what is read."""

from __future__ import annotations

import pytest
import torch

from scd_world.model.decoder import attend_within
from scd_world.model.layers import Block, Rotary, rotate

FRAMES, TOKENS, WIDTH, HEADS = 4, 7, 32, 2


@pytest.fixture
def block() -> Block:
    torch.manual_seed(0)
    block = Block(WIDTH, HEADS)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return block


@pytest.fixture
def given() -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(1)
    place = torch.arange(TOKENS)
    rotary = Rotary(WIDTH // HEADS, place, place % 3)(torch.zeros(1, dtype=torch.long))
    h = torch.randn(FRAMES, 1, TOKENS, WIDTH, generator=g)
    return h, torch.randn(FRAMES, 1, 1, WIDTH, generator=g), rotary


@pytest.mark.parametrize("first", [0, 3])
def test_tokens_that_go_no_further_are_seen_as_if_they_did(block, given, first):
    whole, part = block(*given, attend_within), block(*given, attend_within, first)
    assert part.shape[2] == TOKENS - first
    torch.testing.assert_close(part, whole[:, :, first:], atol=1e-5, rtol=1e-5)


def test_keys_and_values_alone_are_those_that_the_whole_block_shows(block, given):
    shown = []

    def see(k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        shown.extend((k, v))
        return k, v, None

    block(*given, see)
    for mine, theirs in zip(block.keys_values(*given), shown, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_pairs_are_turned_by_the_angle_of_their_place():
    place = torch.arange(TOKENS)
    cos, sin = Rotary(8, place, place)(torch.arange(3))
    x = torch.randn(3 * TOKENS, 8, generator=torch.Generator().manual_seed(2))
    turned = torch.complex(*rotate(x, cos, sin).chunk(2, dim=-1))
    angle = torch.complex(cos[:, :4], sin[:, 4:])
    torch.testing.assert_close(turned, torch.complex(*x.chunk(2, dim=-1)) * angle)
    torch.testing.assert_close(angle.abs(), torch.ones(3 * TOKENS, 4))
