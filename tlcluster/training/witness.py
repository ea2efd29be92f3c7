"""Where the workers of a node stand, seen by another process of the same account there.

A worker that hangs is not asked to do anything in Python: its notes are read from its memory files,
the system says whether its process runs, and C code writes its stacks. See
`tlcluster.training.diary`.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tlcluster.records import RankRecord
from tlcluster.training.diary import ASK, Note, Pages, decoded, stat_of

LOOK_SECONDS = 1.0
"""For how long the use of the processor is measured."""

ANSWER_SECONDS = 5.0
"""Time for the stacks. C code writes them within milliseconds unless the node is overloaded."""

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
_ALWAYS_THERE = "tlcluster/training/guarded_port.py"
"""A thread that stands here is always there and never the reason."""


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
    for one, process in zip(workers, before, strict=True):
        # A stopped process would write its stacks when it continues.
        if one.stacks is not None and process.state and process.state not in STOPPED:
            with contextlib.suppress(OSError):
                os.kill(one.pid, ASK)
    stacks = [
        parsed(text) for text in _new_stacks(workers, before, written, began + ANSWER_SECONDS)
    ]
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
    note = _note(one)
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
    note = _note(one)
    of_thread = stat_of(f"{one.pid}/task/{note.task}") if note else []
    return _Process((of_thread or fields)[0], int(fields[11]) + int(fields[12]))


def _note(one: Pages) -> Note | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        return decoded(_file(one, one.notes).read_bytes())
    return None


def _size(one: Pages) -> int:
    with contextlib.suppress(OSError):
        return _file(one, one.stacks).stat().st_size
    return 0


def _file(one: Pages, descriptor: int | None) -> Path:
    return Path(f"/proc/{one.pid}/fd/{descriptor}")


def _new_stacks(
    workers: Sequence[Pages], processes: Sequence[_Process], written: Sequence[int], until: float
) -> Iterator[str]:
    """What each worker writes about its stacks behind the `written` bytes."""
    for one, process, start in zip(workers, processes, written, strict=True):
        size, since = start, time.monotonic()
        while process.state and process.state not in STOPPED and time.monotonic() < until:
            if (now := _size(one)) != size:
                size, since = now, time.monotonic()
            elif size > start and time.monotonic() - since > SETTLED_SECONDS:
                break
            time.sleep(0.02)
        text = ""
        with contextlib.suppress(OSError):
            text = _file(one, one.stacks).read_bytes()[start:].decode(errors="replace")
        yield text
