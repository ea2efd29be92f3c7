"""Brings entries to a tracker, each as often as it has changed, and again if that fails."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from tlcluster.terminal import one_line
from tlcluster.tracking.entry import Entry

FIRST_PAUSE_SECONDS = 15.0
LONGEST_PAUSE_SECONDS = 300.0
"""A tracker that fails is left alone for so long. Each failure doubles it, up to the longest."""

MOST_REASON = 300
"""Characters that are shown of what a tracker's library says."""


class Sink(Protocol):
    """A tracker as its library sends to it. Each call may raise anything, and may take long."""

    @property
    def place(self) -> str:
        """Where a person finds the run, in words or as an address."""

    def send(self, entry: Entry) -> None:
        """Bring the tracker's run up to date. It is found by the entry's id, or made; what the
        tracker has already is not sent again. The run as a whole comes before its replicates."""

    def send_report(self, entry: Entry, folder: Path) -> None:
        """Send the files of a report to the run as a whole, which `send` has had before."""


class Courier:
    """Remembers what a tracker has of a run."""

    def __init__(self, open_sink: Callable[[], Sink], say: Callable[[str], None]) -> None:
        """
        Args:
            open_sink: imports the library and finds the tracker.
            say: called once, with the reason, when the tracker first fails.
        """
        self._open, self._say = open_sink, say
        self._sink: Sink | None = None
        self._sent: dict[str, Entry] = {}
        self._refused: set[str] = set()
        self._pause, self._until = 0.0, 0.0
        self.why: str | None = None
        """The latest failure; None if there is nothing that has to be sent again."""

    @property
    def place(self) -> str:
        """Where a person finds the run; empty if the tracker was never reached."""
        return self._sink.place if self._sink else ""

    def bring(self, entries: Sequence[Entry], *, last: bool = False) -> None:
        """Send what has changed. After a failure, only the pause decides when that is tried again.

        Args:
            entries: the run as a whole, then its replicates.
            last: send now, whatever failed before, and the run as a whole in any case.
        """
        if not last and time.monotonic() < self._until:
            return
        failures: list[Exception] = []
        # What was refused before comes last, so that it keeps nothing else from being sent.
        for entry in sorted(
            entries, key=lambda one: (one.parent is not None, one.id in self._refused)
        ):
            if self._sent.get(entry.id) == entry and not (last and entry.parent is None):
                continue
            try:
                if self._sink is None:
                    self._sink = self._open()
                self._sink.send(entry)
            except Exception as error:  # noqa: BLE001 - whatever a library raises
                failures.append(error)
                self._refused.add(entry.id)
                # Only one replicate may be refused; but each request to a tracker that is away
                # takes its time, and without the run as a whole there is no place for the others.
                if len(failures) > 1 or entry.parent is None:
                    break
            else:
                self._sent[entry.id] = entry
                self._refused.discard(entry.id)
        self._note(failures)

    def bring_report(self, entry: Entry, folder: Path) -> None:
        """Send the report, as the last of all."""
        if self._sink is None:
            return
        try:
            self._sink.send_report(entry, folder)
        except Exception as error:  # noqa: BLE001 - whatever a library raises
            self._note([error])

    def _note(self, failures: Sequence[Exception]) -> None:
        if not failures:
            self._pause, self.why = 0.0, None
            return
        self._pause = min(max(2 * self._pause, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
        self._until = time.monotonic() + self._pause
        first, self.why = self.why is None, reason(failures[0])
        if first:
            self._say(self.why)


def reason(error: Exception) -> str:
    """What a library said, on one line, without credentials."""
    text = one_line(str(error)) or type(error).__name__
    if len(text) <= MOST_REASON:
        return text
    # The cause of a failed connection is at the end.
    half = MOST_REASON // 2
    return f"{text[:half]} … {text[-half:]}"
