"""How work ends early on Ctrl-C or a scheduler's SIGTERM: at the next good moment, keeping what there is."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """Says that work was stopped by a signal at a moment of its own choosing: what is kept, how to go on.

    A KeyboardInterrupt, so that nobody who catches exceptions goes on as if nothing had been."""

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.status = 128 + number  # of the process, as shells have it


class StopSignal:
    """Turns SIGTERM and SIGINT into a wish to stop soon; a second signal acts as it did before."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.number: signal.Signals | None = None
        self.before: dict[signal.Signals, Any] = {}

    def __bool__(self) -> bool:
        return self.number is not None

    @property
    def name(self) -> str | None:
        return None if self.number is None else self.number.name

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python refuses handlers
            self.before = {number: signal.signal(number, self.receive) for number in self.SIGNALS}
        return self

    def receive(self, number: int, frame: FrameType | None) -> None:
        self.number = signal.Signals(number)
        self.restore()

    def __exit__(self, *exc: object) -> None:
        self.restore()

    def restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
