"""How a command ends when it cannot go on: one message with the cure, and an exit code."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from omegaconf.errors import OmegaConfBaseException

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MAKE_ROOM = "the disk is full, or a quota or size limit is reached: make room, or name another out="
WRONG = 2  # exit code


@contextmanager
def plain_errors() -> Iterator[None]:
    """What a user can cure ends a command with its message alone; SCD_DEBUG=1 shows where it was found."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("lerobot", "torch"):  # of a codec for every episode, of a cache at the end
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    except (ValueError, TypeError, OSError, FloatingPointError, OmegaConfBaseException) as error:
        if os.environ.get("SCD_DEBUG"):
            raise
        full = isinstance(error, OSError) and error.errno in FULL
        print(f"error: {error}" + (f" ({MAKE_ROOM})" if full else ""), file=sys.stderr)
        sys.exit(WRONG)
