"""What the driver reads and writes in storage, without waiting for it."""

import math
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from tlcluster.orchestration.board import Since
from tlcluster.records import HANGS, RESULT, ExperimentResult, HangRecord
from tlcluster.report.reading import DamagedRecord, read_hangs, read_record
from tlcluster.storage.patient import patient
from tlcluster.storage.protocol import Store

Answer = TypeVar("Answer")

SLOW_SECONDS = 30.0
"""Storage counts as away if an errand takes longer. Each is a few small requests."""

SILENT = "requests get no answer"


class Errands:
    """Carries out errands one after the other, in a thread of its own.

    While storage does not answer, the errand at hand is tried again and the
    others wait, so that writes keep their order and the driver stays awake.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._pending = 0
        self._idle = threading.Condition()
        self._hurry = threading.Event()
        self._failing: Since | None = None
        self._began: float | None = None
        """When the errand at hand began."""
        # A daemon: an errand that hangs must not keep the command from ending.
        threading.Thread(target=self._work, daemon=True).start()

    @property
    def away(self) -> Since | None:
        """Since when storage does not answer, if it does not."""
        began = self._began
        if self._failing is None and began is not None:
            # A connection that hangs fails only after minutes.
            return Since(began, SILENT) if time.monotonic() - began > SLOW_SECONDS else None
        return self._failing

    def patient(self, store: Store) -> Store:
        """The store for use in errands: while it does not answer, `away` says so."""
        return patient(store, math.inf, on_wait=self._note, should_stop=self._hurry.is_set)

    def do(self, errand: Callable[[], Answer]) -> "Future[Answer]":
        """Queue an errand. The future has its answer, or its exception."""
        future: Future[Answer] = Future()

        def work() -> None:
            try:
                future.set_result(errand())
            except BaseException as error:  # noqa: BLE001 - for whoever asks the future
                future.set_exception(error)

        with self._idle:
            self._pending += 1
        self._queue.put(work)
        return future

    def close(self, seconds: float) -> bool:
        """Try each errand that is left once more; True if all were done in so many seconds."""
        self._hurry.set()
        with self._idle:
            return self._idle.wait_for(lambda: not self._pending, seconds)

    def _work(self) -> None:
        while True:
            errand = self._queue.get()
            self._began = time.monotonic()
            errand()
            self._began = None
            with self._idle:
                self._pending -= 1
                self._idle.notify_all()

    def _note(self, seconds: float, why: str) -> None:
        # The first call comes after no time at all.
        self._failing = Since(time.monotonic() - seconds, why) if why else None


def read_result(run: Store, folder: str) -> ExperimentResult:
    """The result in the folder of a training; `queued` if there is none or it is damaged."""
    try:
        found = read_record(ExperimentResult, run, f"{folder}/{RESULT}")
    except DamagedRecord:
        found = None
    return found or ExperimentResult(status="queued")


def write_result(run: Store, folder: str, result: ExperimentResult) -> None:
    run.put(f"{folder}/{RESULT}", result.model_dump_json(indent=1).encode() + b"\n")


def add_hang(run: Store, folder: str, hang: HangRecord) -> None:
    """Add a hang to those of a training. One that cannot be read any more is left out."""
    try:
        before = read_hangs(run, f"{folder}/{HANGS}")
    except DamagedRecord:
        before = ()
    lines = "".join(f"{one.model_dump_json()}\n" for one in (*before, hang))
    run.put(f"{folder}/{HANGS}", lines.encode())


def conclude_result(run: Store, folder: str, result: ExperimentResult) -> ExperimentResult:
    """Write how a training ended. If its workers have finished it, only the time that they took.

    They write their result last of all; what happens to them afterwards changes nothing else.

    Returns:
        The result that is there now.
    """
    found = read_result(run, folder)
    if found.status == "finished":
        if result.worker_seconds is None:
            return found
        # The workers do not know how long they were there.
        spent = result.model_dump(include={"worker_seconds", "gpu_seconds"})
        result = found.model_copy(update=spent)
    write_result(run, folder, result)
    return result
