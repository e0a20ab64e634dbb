"""The entry points of the ten commands. They import nothing before they run: Ctrl-C has its line from the
first moment."""

from __future__ import annotations

import sys
from collections.abc import Callable


def entry_point(name: str) -> Callable[[], None]:
    def main() -> None:
        try:
            from scd_world.cli.run_command import run_command
        except KeyboardInterrupt:
            print("interrupted: nothing had begun", file=sys.stderr)
            sys.exit(130)
        run_command(name)

    return main


record, data, train, distill, evaluate = map(entry_point, ("record", "data", "train", "distill", "evaluate"))
rollout, rank, bench, probe, demo = map(entry_point, ("rollout", "rank", "bench", "probe", "demo"))
