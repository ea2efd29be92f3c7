"""Where the workers of a node stand, seen by another process of the same account there.

Its notes are read from its memory files and the system says whether its process runs, without its
help. It is asked for its stacks, in two ways. See
`tlcluster.training.diary`.
"""

import contextlib
import itertools
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tlcluster.records import RankRecord
from tlcluster.training.diary import ASK, Note, Pages, decoded, stat_of

LOOK_SECONDS = 1.0
"""For how long the use of the processor is measured."""

BELL_SECONDS = 3.0
"""Time for the stacks after the bell. Python writes them within milliseconds if it runs at all."""

ANSWER_SECONDS = 5.0
"""The same, with the time for C code."""

SETTLED_SECONDS = 0.25
"""Stacks are complete if no more was written for so long. They have no end mark."""

MOST_FRAMES = 40
"""Of a stack, the innermost ones."""

GONE = "gone"
STOPPED = {"T": "stopped by a signal", "t": "stopped by a debugger"}
"""A process in these states does nothing, and takes signals only when it continues."""

ENDED = ("Z", "X")
"""A process in these states has ended, and nobody has looked at how."""

PROCESS = {
    **STOPPED,
    "R": "running",
    "S": "sleeping",
    "D": "waiting for a disk, a network file system or a driver",
}
"""State of a process, as Linux writes it → in words."""

_THREAD = re.compile(r"(?:Current thread|Thread) 0x([0-9a-f]+)")
_FRAME = re.compile(r'  File "(.*)", line (\d+|\?\?\?) in (.*)')

_OWN = "tlcluster/"
_ALWAYS_THERE = ("tlcluster/training/guarded_port.py", "tlcluster/training/diary.py:")
"""A thread that begins here is always there and never the reason."""


class _Process(NamedTuple):
    """What the system says of a process."""

    state: str
    """Of the thread that trains: one of `PROCESS`, or another letter; "" if the process is gone."""
    ticks: int
    """Processor time that the process has had."""


def seen(workers: Sequence[Pages]) -> list[RankRecord]:
    """Where workers of this node stand. Takes one to five seconds, however many there are."""
    before, began = [_process(one) for one in workers], time.monotonic()
    written = [_size(one) for one in workers]
    # A stopped process would write its stacks when it continues.
    asked = [
        one.stacks is not None and bool(process.state) and process.state not in STOPPED
        for one, process in zip(workers, before, strict=True)
    ]
    for one in itertools.compress(workers, asked):
        _ring(one)
    _settled(workers, asked, written, began + BELL_SECONDS)
    for one in itertools.compress(workers, asked):
        if _size(one) == written[workers.index(one)]:
            with contextlib.suppress(OSError):
                os.kill(one.pid, ASK)
    _settled(workers, asked, written, began + ANSWER_SECONDS)
    stacks = [parsed(_stacks(one, start)) for one, start in zip(workers, written, strict=True)]
    time.sleep(max(0.0, began + LOOK_SECONDS - time.monotonic()))
    after, took = [_process(one) for one in workers], time.monotonic() - began
    return [
        _rank(one, first, last, took, of_threads)
        for one, first, last, of_threads in zip(workers, before, after, stacks, strict=True)
    ]


def unknown(one: Pages, why: str) -> RankRecord:
    """Of a worker of which nothing is known, and why."""
    return RankRecord(rank=one.rank, host=one.host, pid=one.pid, process=why)


def parsed(text: str) -> dict[int, tuple[str, ...]]:
    """The stacks that `faulthandler` wrote.

    Returns:
        Number of a thread → its frames, `file:line function`, the innermost last.
    """
    stacks: dict[int, list[str]] = {}
    frames: list[str] = []
    for line in text.splitlines():
        if thread := _THREAD.match(line):
            frames = stacks.setdefault(int(thread[1], 16), [])
            # A worker that was asked twice wrote them twice.
            frames.clear()
        elif frame := _FRAME.fullmatch(line):
            frames.append(f"{short(frame[1])}:{frame[2]} {frame[3]}")
    return {thread: tuple(reversed(of[:MOST_FRAMES])) for thread, of in stacks.items()}


def short(file: str) -> str:
    """A source file without the folders of the installation."""
    for mark, keep in (("/site-packages/", ""), (f"/{_OWN}", _OWN)):
        _, found, rest = file.rpartition(mark)
        if found:
            return keep + rest
    return Path(file).name


def _rank(
    one: Pages,
    first: _Process,
    last: _Process,
    took: float,
    stacks: dict[int, tuple[str, ...]],
) -> RankRecord:
    if one.notes is None:
        return unknown(one, "unknown: nothing is noted on this system")
    if not last.state:
        return unknown(one, GONE)
    note = note_of(one)
    return RankRecord(
        rank=one.rank,
        host=one.host,
        pid=one.pid,
        process=PROCESS.get(last.state, f"in state {last.state}"),
        cores=round((last.ticks - first.ticks) / os.sysconf("SC_CLK_TCK") / took, 2),
        doing=note.doing if note else "",
        seconds=round(time.monotonic() - note.since, 1) if note else None,
        exchange=note.exchange if note else "",
        inside=note.inside if note else None,
        exchanges=note.exchanges if note else None,
        stack=stacks.get(note.thread, ()) if note else (),
        other_stacks=tuple(
            frames
            for thread, frames in stacks.items()
            if not (note and thread == note.thread) and _is_ours(frames)
        ),
    )


def _is_ours(frames: Sequence[str]) -> bool:
    ours = any(frame.startswith(_OWN) for frame in frames)
    return ours and not any(frame.startswith(_ALWAYS_THERE) for frame in frames)


def _process(one: Pages) -> _Process:
    fields = stat_of(f"{one.pid}")
    if len(fields) < 20 or fields[19] != one.born or fields[0] in ENDED:
        return _Process("", 0)
    note = note_of(one)
    of_thread = stat_of(f"{one.pid}/task/{note.task}") if note else []
    return _Process((of_thread or fields)[0], int(fields[11]) + int(fields[12]))


def note_of(one: Pages) -> Note | None:
    """The last note of a worker of this node; None if it cannot be read."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return decoded(_file(one, one.notes).read_bytes())
    return None


def _size(one: Pages) -> int:
    with contextlib.suppress(OSError):
        return _file(one, one.stacks).stat().st_size
    return 0


def _file(one: Pages, descriptor: int | None) -> Path:
    return Path(f"/proc/{one.pid}/fd/{descriptor}")


def _ring(one: Pages) -> None:
    """Ask a worker for its stacks."""
    with contextlib.suppress(OSError):
        bell = os.open(_file(one, one.bell), os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(bell, b"\n")
        finally:
            os.close(bell)


def _settled(
    workers: Sequence[Pages], asked: Sequence[bool], written: Sequence[int], until: float
) -> None:
    """Wait until each worker that was asked has written its stacks behind the `written` bytes."""
    for one, start in itertools.compress(zip(workers, written, strict=True), asked):
        size, since = start, time.monotonic()
        while time.monotonic() < until:
            if (now := _size(one)) != size:
                size, since = now, time.monotonic()
            elif size > start and time.monotonic() - since > SETTLED_SECONDS:
                break
            time.sleep(0.02)


def _stacks(one: Pages, start: int) -> str:
    with contextlib.suppress(OSError):
        return _file(one, one.stacks).read_bytes()[start:].decode(errors="replace")
    return ""
