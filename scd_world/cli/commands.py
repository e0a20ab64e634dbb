"""The entry points of the eleven commands, and how Ctrl-C and SIGTERM end each: with one line that says what
is kept.

They import nothing before they run, so that there is such a line from the first moment.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType

from scd_world.utils.interruption import Interrupted

INTERRUPTED = 130  # exit code, as shells have it


def entry_point(name: str) -> Callable[[], None]:
    def main() -> None:
        kept = "nothing had begun"
        signal.signal(signal.SIGTERM, partial(terminate, process=os.getpid()))
        try:
            from scd_world.cli.run_command import COMMANDS, run_command

            kept = COMMANDS[name].kept
            run_command(name)
        except KeyboardInterrupt as interrupt:
            if os.environ.get("SCD_DEBUG"):
                raise
            end(interrupt, kept)

    return main


def terminate(number: int, frame: FrameType | None, process: int) -> None:
    """Ends the command as Ctrl-C does. process: its own; those that it made end at once."""
    if os.getpid() == process:
        raise Interrupted("", number)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def end(interrupt: KeyboardInterrupt, kept: str) -> None:
    """Ends the process with a last line. At once: what libraries say of threads and tasks that were cut off
    would come after it.

    kept: what is said where the work itself does not say it more exactly.
    """
    line, status = f"interrupted: {kept}", INTERRUPTED
    if isinstance(interrupt, Interrupted):
        line, status = str(interrupt) or line, interrupt.status
    print(line, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


record, data, train, distill, evaluate = map(entry_point, ("record", "data", "train", "distill", "evaluate"))
rollout, play, rank = map(entry_point, ("rollout", "play", "rank"))
bench, probe, demo = map(entry_point, ("bench", "probe", "demo"))
