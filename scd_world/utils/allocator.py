"""Freed memory that stays with the process."""

from __future__ import annotations

import ctypes
import platform

# Of glibc's malloc.h; the values are ints there, in bytes.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
SETTINGS = {M_MMAP_THRESHOLD: 2**30, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**26}


def keep_freed_memory() -> bool:
    """Keeps what tensors on the CPU leave free, for the next ones; says whether the C library could be told.

    An update frees and asks for the same hundred megabytes again and again. As it comes, glibc gives them
    back to the system, which clears every page anew when it is touched. The process grows by a tenth; what is
    computed does not change.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    taken = [libc.mallopt(name, value) == 1 for name, value in SETTINGS.items()]
    return all(taken)
