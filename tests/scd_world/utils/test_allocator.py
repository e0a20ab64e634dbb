"""Memory that is freed and asked for again is not cleared by the system once more."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from scd_world.utils.allocator import keep_freed_memory

PAGES = 2**26 // resource.getpagesize()


def page_faults(size: int = 2**26) -> int:
    """How many pages of a tensor of `size` bytes the system had to bring."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(size, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library manages its own memory")
def test_a_large_tensor_is_laid_where_the_one_before_it_was():
    assert keep_freed_memory()
    for _ in range(8):  # a hole is used again once it has room for a tensor and its alignment
        page_faults()
    assert page_faults() < PAGES // 10
