"""Requests to stop before the end."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType

from tlcluster.orchestration.state import Stop

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class StopRequests:
    """Remembers the first request to stop."""

    def __init__(self) -> None:
        self.first: Stop | None = None

    def ask(self, kind: signal.Signals) -> None:
        """Ask to stop. Only the first request counts."""
        if self.first is None:
            self.first = Stop(kind, time.monotonic())

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Inside the block, `SIGNALS` ask to stop. Ctrl-C once more ends the process at once.

        Batch systems may send more than one SIGTERM and mean nothing else by the second. A SIGHUP
        that is ignored stays so: `nohup` lets a command outlive its terminal.
        """

        def hear(number: int, _: FrameType | None) -> None:
            if self.first and number == signal.SIGINT:
                os._exit(128 + number)
            self.ask(signal.Signals(number))

        before = {}
        for kind in SIGNALS:
            if kind != signal.SIGHUP or signal.getsignal(kind) != signal.SIG_IGN:
                before[kind] = signal.signal(kind, hear)
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)
