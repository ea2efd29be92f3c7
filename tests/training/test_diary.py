"""The notes of workers that hang, read by another process: real ones, without TensorFlow."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tlcluster.records import RankRecord
from tlcluster.training.diary import NO_DIARY, Note, Pages, decoded, encoded, opened
from tlcluster.training.witness import GONE, parsed, seen, short

ROOT = Path(__file__).parents[2]

WORKER = """
import ctypes, json, sys, threading, time
from tlcluster.training.diary import opened

def stands():
    if sys.argv[1] == "with the lock":
        ctypes.PyDLL(None).sleep(600)
    while sys.argv[1] == "computing":
        pass
    threading.Event().wait()

diary, pages = opened(int(sys.argv[2]))
with diary.together("introduction of the workers"):
    pass
diary.does("a very long name, of which nothing may be left in a shorter note")
diary.does("validation of epoch 2")
print(json.dumps(pages), flush=True)
with diary.together():
    stands()
"""

KINDS = ("waiting", "with the lock", "computing", "stopped", "gone")


@pytest.fixture(scope="module")
def stand() -> Iterator[dict[str, RankRecord]]:
    """Kind of a worker → where it stands."""
    workers = {
        kind: subprocess.Popen(
            [sys.executable, "-c", WORKER, kind, str(rank)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )
        for rank, kind in enumerate(KINDS)
    }
    try:
        pages = []
        for worker in workers.values():
            assert worker.stdout is not None
            pages.append(Pages(*json.loads(worker.stdout.readline())))
        workers["stopped"].send_signal(signal.SIGSTOP)
        workers["gone"].kill()
        # They hang for a while; and without `wait`, the status of the one that is gone is left.
        time.sleep(0.5)
        yield dict(zip(KINDS, seen(pages), strict=True))
    finally:
        for worker in workers.values():
            worker.kill()
            worker.communicate()


@pytest.mark.parametrize("kind", ["waiting", "with the lock", "computing", "stopped"])
def test_what_a_hanging_worker_does_is_known(kind: str, stand: dict[str, RankRecord]) -> None:
    one = stand[kind]
    assert one.rank == KINDS.index(kind)
    assert one.doing == one.exchange == "validation of epoch 2"
    assert one.inside
    assert one.exchanges == 2
    assert one.seconds is not None
    assert 0 < one.seconds < 60


@pytest.mark.parametrize("kind", ["waiting", "with the lock", "computing"])
def test_its_stack_is_known_also_while_a_library_holds_python_s_lock(
    kind: str, stand: dict[str, RankRecord]
) -> None:
    stack = stand[kind].stack
    assert stack[0].endswith("<module>")
    assert any(frame.endswith(" stands") for frame in stack)
    assert stand[kind].other_stacks == ()


def test_a_worker_that_is_stopped_is_told_from_one_that_waits_and_one_that_computes(
    stand: dict[str, RankRecord],
) -> None:
    assert stand["stopped"].process == "stopped by a signal"
    assert stand["stopped"].stack == ()
    assert stand["waiting"].process == stand["with the lock"].process == "sleeping"
    assert stand["computing"].process in ("running", "sleeping")
    cores = {kind: stand[kind].cores or 0.0 for kind in KINDS}
    assert max(cores, key=lambda kind: cores[kind]) == "computing"
    assert cores["stopped"] == 0.0


def test_of_a_worker_that_is_gone_only_that_is_known(stand: dict[str, RankRecord]) -> None:
    gone = stand["gone"]
    assert gone.process == GONE
    assert (gone.doing, gone.inside, gone.stack) == ("", None, ())


def test_a_later_process_with_the_same_number_is_not_taken_for_the_worker() -> None:
    # Nobody asks this process, which would end if it were asked.
    other = Pages(0, "a", os.getpid(), "1", 0, 0, 0)
    (found,) = seen([other])
    assert found.process == GONE


def test_where_nothing_is_noted_nothing_is_known() -> None:
    (found,) = seen([Pages(0, "a", os.getpid(), "", None, None, None)])
    assert found.process == "unknown: nothing is noted on this system"
    with NO_DIARY.together("test"):
        NO_DIARY.does("test")


def test_a_shorter_note_over_a_longer_one_is_read_alone() -> None:
    note = Note(1, 2, "test", 3.5, "validation of epoch 2", True, 9)
    assert decoded(encoded(note) + b'ation", 1.0]\n') == note
    assert decoded(b"") is None


DUMP = """\
Thread 0x00007f3a (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 324 in wait
  File "/checkout/tlcluster/tlcluster/training/features.py", line 190 in load

Current thread 0x00007f3b (most recent call first):
  File "/env/lib/python3.11/site-packages/tensorflow/python/eager/execute.py", line 53 in execute
  File "/env/lib/python3.11/site-packages/tlcluster/training/loop.py", line 99 in _train
  File "<string>", line 3 in <module>
"""


def test_stacks_are_read_by_thread_without_the_folders_of_an_installation() -> None:
    assert parsed(DUMP) == {
        0x7F3A: ("tlcluster/training/features.py:190 load", "threading.py:324 wait"),
        0x7F3B: (
            "<string>:3 <module>",
            "tlcluster/training/loop.py:99 _train",
            "tensorflow/python/eager/execute.py:53 execute",
        ),
    }
    # Asked twice, it is read once.
    assert parsed(DUMP + "\n" + DUMP) == parsed(DUMP)
    assert short("/srv/tlcluster/tests/a.py") == "tlcluster/tests/a.py"


def test_a_diary_is_of_the_thread_that_opens_it() -> None:
    before = signal.getsignal(signal.SIGUSR2)
    _, pages = opened(3)
    assert (pages.rank, pages.pid) == (3, os.getpid())
    # C code listens, so Python's own handler is as it was.
    assert signal.getsignal(signal.SIGUSR2) == before
