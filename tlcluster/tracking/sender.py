"""The process that sends a run's records to one tracker while the run goes on.

    python -m tlcluster.tracking.sender

reads an `Order` as one line of JSON from stdin and writes `Note`s to stdout, one a line. When stdin
ends, it sends what is left, writes the last note and ends. `tlcluster.tracking.process` starts it.

A process of its own, so that a library that hangs, prints, or waits at its exit does nothing to the
run; and so that the run's records are all that it can send.
"""

import contextlib
import importlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tlcluster.errors import StoreUnavailable, UserError
from tlcluster.records import REPORT
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store
from tlcluster.storage.scratch import scratch_folder
from tlcluster.tracking.courier import Courier, reason
from tlcluster.tracking.entry import Entry
from tlcluster.tracking.messages import Note, Order
from tlcluster.tracking.view import View

POLL_SECONDS = 10.0
"""Between two looks at the records."""

ORPHAN_SECONDS = 120.0
"""How long this process may go on after its stdin has ended, if whoever started it is gone."""


def main() -> None:
    """Carry out one order; see the module's docstring."""
    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        # A batch system signals all processes of a job. This one ends when its stdin does.
        signal.signal(kind, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(10)
    write = _own_stdout()
    order = Order.model_validate_json(sys.stdin.buffer.readline())
    ended = threading.Event()
    if order.keys is None:
        ended.set()
    else:
        threading.Thread(target=_watch_stdin, args=(ended,), daemon=True).start()
    write(follow(order, ended, write))


def follow(order: Order, ended: threading.Event, write: Callable[[Note], None]) -> Note:
    """Send a run until it has ended; the last note says whether all was sent.

    Args:
        order: what to send where.
        ended: set when the driver trains no more.
        write: called with what a person should read meanwhile.
    """

    def open_sink() -> Any:
        return importlib.import_module(order.module).Sink()

    def say(why: str) -> None:
        if not ended.is_set():  # else the last note says it
            write(Note(text=why))

    courier = Courier(open_sink, say)
    run: Store | None = None
    view: View | None = None
    while True:
        last = ended.is_set()  # Before the look: what was recorded before the end is seen.
        unread = None
        try:
            run = run or open_store(order.run)
            view = view or View(run, order.keys)
            entries = view.entries(last=last)
            courier.bring(entries, last=last)
            if last and courier.why is None:
                _report(view, courier, entries[0])
        except (UserError, StoreUnavailable, OSError) as error:
            unread = reason(error)
        if last:
            break
        ended.wait(POLL_SECONDS)
    why = unread or courier.why or next(iter(view.damaged.values() if view else ()), None)
    return Note(text=why or courier.place, last=True, sent=why is None)


def _report(view: View, courier: Courier, whole: Entry) -> None:
    files = view.report()
    if not files:
        return
    with scratch_folder("report", Path(tempfile.gettempdir())) as scratch:
        folder = scratch / REPORT  # without the mark that is in the other
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        courier.bring_report(whole, folder)


def _own_stdout() -> Callable[[Note], None]:
    """Keep stdout for the notes: libraries that print, print to nowhere."""
    notes = os.fdopen(os.dup(1), "w", encoding="utf-8", closefd=True)
    os.set_inheritable(notes.fileno(), False)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)

    def write(note: Note) -> None:
        with contextlib.suppress(OSError):
            print(note.model_dump_json(), file=notes, flush=True)

    return write


def _watch_stdin(ended: threading.Event) -> None:
    sys.stdin.buffer.read()
    ended.set()
    # Whoever started this process waits as long as it likes, and then ends it; unless it was
    # killed itself.
    threading.Event().wait(ORPHAN_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
