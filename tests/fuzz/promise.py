"""What every reader of a stranger's file promises, held to it, and a count of how often.

The file is read, or refused in one printable line. Nothing in it is run or unpickled, no file is
written but into the reader's own folder, and it takes little time and memory.
"""

import os
import signal
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TypeVar

from hypothesis import HealthCheck, settings

from tlcluster.errors import UserError

VARIABLE = "TLCLUSTER_FUZZ"
"""Examples of each target; `make fuzz` sets it."""

FEW = 25

LONG = VARIABLE in os.environ

fuzzed = settings(
    max_examples=int(os.environ.get(VARIABLE, FEW)),
    # `make test` asks the same of every change; new questions are for `make fuzz`.
    derandomize=not LONG,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
"""The settings of a target: `@fuzzed` above `@given(…)`."""

MEMORY = 2**27
"""Bytes that a reader may take, unless a test says otherwise. The files have some kilobytes."""

SECONDS = 20.0
"""Processor time for one file."""

LONGEST = 2500
"""Characters of a refusal."""

Value = TypeVar("Value")


@dataclass
class Tally:
    """What came of the examples of a target."""

    read: int = 0
    refused: int = 0
    slowest: float = 0.0
    """Processor seconds of one example."""
    largest: int = 0
    """Bytes that one example took."""
    reasons: set[str] = field(default_factory=set)
    """The first words of the refusals: whether the examples reach different parts of the reader."""


TALLIES: dict[str, Tally] = {}
"""Target → its tally, in the order of the tests."""


class Breach(BaseException):
    """The promise is broken. No `except Exception` of the reader catches it."""


def kept(
    target: str,
    read: Callable[[], Value],
    *,
    folder: Path | None = None,
    refusal: type[Exception] = UserError,
    memory: int = MEMORY,
    says: Callable[[str], str] = str,
) -> Value | None:
    """What a reader returns, or None if it refuses the file; an AssertionError if it does worse.

    Args:
        target: name for the count.
        read: the reader, with its file.
        folder: where it may write; None if nowhere.
        refusal: what it raises to refuse.
        memory: bytes that it may take.
        says: what becomes of a refusal before anybody sees it.
    """
    tally = TALLIES.setdefault(target, Tally())
    value = error = None
    begun = time.process_time()
    try:
        with _watched(folder) as breaches, _measured() as peak:
            value = read()
    except refusal as caught:
        error = caught
    except Breach as breach:
        raise AssertionError(str(breach)) from None
    seconds = time.process_time() - begun
    assert breaches == []
    assert peak[0] <= memory, f"it took {peak[0]:,} bytes"
    assert seconds <= SECONDS, f"it took {seconds:.1f} s"
    tally.slowest, tally.largest = max(tally.slowest, seconds), max(tally.largest, peak[0])
    if error is None:
        tally.read += 1
        return value
    line = says(str(error))
    assert line.isprintable(), f"a refusal that a terminal would obey: {line!r}"
    assert 0 < len(line) <= LONGEST, f"a refusal of {len(line)} characters"
    tally.refused += 1
    tally.reasons.add(" ".join(line.rpartition("/")[2].split()[:4]))
    return None


@contextmanager
def _measured() -> Iterator[list[int]]:
    """The most memory that Python and NumPy take inside the block, in bytes."""
    peak = [0]
    tracemalloc.start()
    try:
        yield peak
    finally:
        peak[0] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


class _Watch(threading.local):
    """What this thread may not do now."""

    folder: str | None = None
    breaches: list[str] | None = None
    """What it did all the same; None if nobody watches."""


_watch = _Watch()

_FORBIDDEN = frozenset(
    {
        "pickle.find_class",
        "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system",
        "pty.spawn", "subprocess.Popen",
        "socket.bind", "socket.connect", "socket.getaddrinfo", "urllib.Request",
        "os.chmod", "os.chown", "os.link", "os.symlink", "os.setxattr",
    }
)  # fmt: skip

_CHANGES = frozenset({"os.mkdir", "os.rename", "os.truncate"})

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    """Of all that Python does, see PEP 578."""
    if _watch.breaches is None:
        return
    done = None
    if event in _FORBIDDEN:
        done = f"{event}{arguments!r:.300}"
    elif event in _CHANGES or (event == "open" and _writes(arguments[2])):
        done = _written(arguments[0])
    if done:
        _watch.breaches.append(done)
        raise Breach(done)


def _writes(flags: object) -> bool:
    return isinstance(flags, int) and bool(flags & _WRITES)


def _written(path: object) -> str | None:
    if not isinstance(path, str | bytes | os.PathLike):
        return None  # a descriptor, which was opened before
    name = os.path.realpath(os.fsdecode(path))
    inside = _watch.folder is not None and name.startswith(_watch.folder + os.sep)
    return None if inside or name == os.devnull else f"writes {name}"


sys.addaudithook(_hear)


@contextmanager
def _watched(folder: Path | None) -> Iterator[list[str]]:
    """What is done inside the block that must not be; it is also stopped at once."""
    breaches: list[str] = []
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    before = signal.signal(signal.SIGVTALRM, _too_long)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    _watch.folder = os.path.realpath(folder) if folder else None
    _watch.breaches = breaches
    try:
        yield breaches
    finally:
        _watch.breaches = None
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        sys.dont_write_bytecode = bytecode


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise Breach(f"it takes more than {SECONDS:.0f} s")
