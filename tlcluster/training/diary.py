"""What a worker does, noted where others can read it although the worker hangs.

A worker that is stopped, or waits inside a library, answers nobody. So it notes what it does in a
file in memory, which another process of its account on the same node reads as `/proc/PID/fd/N`.
A second such file takes the Python stacks of all its threads. A thread writes them when a bell
rings: a byte in a pipe. If a library holds Python's global lock, that thread cannot run, and the
signal `ASK` lets C code write them. That is the last resort: of threads that run, C code may read
frames that are just being freed, and crash. All of it ends with the process.

`tlcluster.training.witness` reads them. On systems other than Linux nothing is noted.
"""

import contextlib
import faulthandler
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ASK = signal.SIGUSR2
"""Asks a worker for its stacks if it does not hear the bell."""


class Pages(NamedTuple):
    """Where the diary of a worker is, on its node."""

    rank: int
    host: str
    pid: int
    born: str
    """When the process started, in clock ticks: a later one may have the same number."""
    notes: int | None
    """File descriptor, in that process, of its last `Note`; None if it takes none."""
    stacks: int | None
    """The same of its stacks."""
    bell: int | None
    """The same of the pipe into which a byte asks for them."""


class Note(NamedTuple):
    """What a worker does. Times are seconds of `time.monotonic`, which a node's processes share."""

    thread: int
    """The one that trains, as Python counts threads."""
    task: int
    """The same thread, as the system counts them."""
    doing: str = ""
    since: float = 0.0
    exchange: str = ""
    """The last thing that it did together with all other workers; "" before the first."""
    inside: bool = False
    """Whether it has not come out of that."""
    exchanges: int = 0
    """How many of them it has begun. All workers begin the same ones in the same order."""


def _nowhere(_: bytes) -> None: ...


class Diary:
    """The notes of one worker, from the thread that trains."""

    def __init__(self, write: Callable[[bytes], None] = _nowhere) -> None:
        """
        Args:
            write: replaces the last note. By default there are no notes.
        """
        self._write = write
        self._last = Note(threading.get_ident(), threading.get_native_id())

    def does(self, what: str) -> None:
        """Note what the worker does from now on, as a noun: `validation of epoch 2`."""
        self._note(doing=what, since=time.monotonic())

    @contextlib.contextmanager
    def together(self, what: str = "") -> Iterator[None]:
        """Note that the block is done with all other workers and waits for them.

        Args:
            what: see `does`; by default what the worker does already.
        """
        what = what or self._last.doing
        begun = self._last.exchanges + 1
        self._note(doing=what, since=time.monotonic(), exchange=what, inside=True, exchanges=begun)
        yield
        # After an exception the worker ends.
        self._note(inside=False)

    def _note(self, **changes: object) -> None:
        self._last = self._last._replace(**changes)  # type: ignore[arg-type]
        self._write(encoded(self._last))


NO_DIARY = Diary()
"""Takes no notes."""


def opened(rank: int) -> tuple[Diary, Pages]:
    """The diary of this process. To be called by the thread that trains, once."""
    pid = os.getpid()
    place = rank, socket.gethostname(), pid, born(pid)
    if sys.platform != "linux":
        return NO_DIARY, Pages(*place, None, None, None)
    notes = os.memfd_create("tlcluster-notes")
    stacks = os.memfd_create("tlcluster-stacks")
    hears, bell = os.pipe()

    def answer() -> None:
        while os.read(hears, 1):
            faulthandler.dump_traceback(stacks, all_threads=True)

    threading.Thread(target=answer, name="diary", daemon=True).start()
    faulthandler.register(ASK, file=stacks, all_threads=True)

    def write(line: bytes) -> None:
        os.pwrite(notes, line, 0)

    return Diary(write), Pages(*place, notes, stacks, bell)


def encoded(note: Note) -> bytes:
    """A note as one line. It may be followed by the rest of a longer one."""
    return json.dumps(note).encode() + b"\n"


def decoded(content: bytes) -> Note | None:
    """The note at the beginning of a file; None if there is none."""
    line, end, _ = content.partition(b"\n")
    return Note(*json.loads(line)) if end else None


def stat_of(process: str) -> list[str]:
    """The fields of `/proc/PROCESS/stat` from the third on, the state.

    Empty if there is no such process, or none of this system."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return []
    # The second field is the name of the program, which may hold anything.
    return text.rpartition(")")[2].split()


def born(pid: int) -> str:
    """When a process started, in clock ticks; "" if that is not known."""
    return next(iter(stat_of(f"{pid}")[19:20]), "")
