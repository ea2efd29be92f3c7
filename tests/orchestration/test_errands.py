"""What the driver does in storage: in order, without waiting, and again after an outage."""

import threading
from pathlib import Path

import pytest

from tlcluster.errors import StoreUnavailable, UserError
from tlcluster.orchestration.errands import (
    Errands,
    add_hang,
    conclude_result,
    read_result,
    write_result,
)
from tlcluster.records import HANGS, RESULT, ExperimentResult, HangRecord
from tlcluster.report.reading import read_hangs
from tlcluster.storage import patient
from tlcluster.storage.directory import DirectoryStore
from tlcluster.storage.protocol import Store

LONG = 60.0
FAILED = ExperimentResult(status="failed", error="its worker died", attempts=2)


class Outage(DirectoryStore):
    """A directory that can be away."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.away = threading.Event()
        self.tried = threading.Event()

    def put(self, key: str, data: bytes | Path) -> None:
        if self.away.is_set():
            self.tried.set()
            raise StoreUnavailable("the directory does not answer")
        super().put(key, data)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outage:
    monkeypatch.setattr(patient, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(patient, "LONGEST_PAUSE_SECONDS", 0.01)
    return Outage(tmp_path)


def put(store: Store, key: str) -> None:
    store.put(key, b"")


def test_errands_are_done_in_order_and_their_answers_come_back() -> None:
    errands = Errands()
    done: list[int] = []
    futures = [
        errands.do(lambda number=number: done.append(number) or number) for number in range(9)
    ]  # type: ignore[misc,func-returns-value]
    assert [future.result(LONG) for future in futures] == list(range(9)) == done
    assert errands.close(LONG)
    assert errands.away is None


def test_what_cannot_be_written_is_written_when_storage_is_back(store: Outage) -> None:
    errands = Errands()
    waiting = errands.patient(store)
    store.away.set()
    first, second = errands.do(lambda: put(waiting, "a")), errands.do(lambda: put(waiting, "b"))
    assert store.tried.wait(LONG)
    store.tried.clear()
    assert store.tried.wait(LONG)
    assert errands.away is not None
    assert errands.away.why == "the directory does not answer"
    assert not first.done()
    store.away.clear()
    first.result(LONG)
    second.result(LONG)
    assert errands.away is None
    assert [item.key for item in store.list()] == ["a", "b"]


def test_at_the_end_each_errand_is_tried_once_more_and_storage_stays_away(store: Outage) -> None:
    errands = Errands()
    waiting = errands.patient(store)
    store.away.set()
    futures = [errands.do(lambda key=key: put(waiting, key)) for key in "ab"]  # type: ignore[misc]
    assert store.tried.wait(LONG)
    assert errands.close(LONG)
    for future in futures:
        with pytest.raises(StoreUnavailable):
            future.result(0)
    assert errands.away is not None


def test_an_errand_that_hangs_does_not_keep_the_driver_from_ending() -> None:
    errands = Errands()
    released = threading.Event()
    errands.do(lambda: released.wait(LONG))
    assert not errands.close(0.01)
    released.set()
    assert errands.close(LONG)


def test_storage_that_hangs_counts_as_away(monkeypatch: pytest.MonkeyPatch) -> None:
    errands = Errands()
    assert errands.away is None
    started, released = threading.Event(), threading.Event()

    def hang() -> None:
        started.set()
        released.wait(LONG)

    hanging = errands.do(hang)
    assert started.wait(LONG)
    assert errands.away is None
    monkeypatch.setattr("tlcluster.orchestration.errands.SLOW_SECONDS", -1.0)
    assert errands.away is not None
    assert errands.away.why == "requests get no answer"
    released.set()
    hanging.result(LONG)
    assert errands.close(LONG)
    assert errands.away is None


def test_what_storage_refuses_is_an_error_and_the_next_errand_is_done(store: Outage) -> None:
    errands = Errands()
    refused = errands.do(lambda: put(errands.patient(store), "../a"))
    assert errands.do(lambda: 5).result(LONG) == 5
    with pytest.raises(UserError, match="not a safe key"):
        refused.result(0)
    assert errands.away is None


def test_a_result_is_read_as_it_was_written(store: Outage) -> None:
    assert read_result(store, "frozen").status == "queued"
    write_result(store, "frozen", FAILED)
    assert read_result(store, "frozen") == FAILED
    store.put(f"frozen/{RESULT}", b"{")
    assert read_result(store, "frozen").status == "queued"


def test_what_the_workers_have_finished_stays_finished(store: Outage) -> None:
    finished = ExperimentResult(status="finished", epochs_run=3)
    assert conclude_result(store, "frozen", FAILED) == FAILED
    assert read_result(store, "frozen") == FAILED
    write_result(store, "frozen", finished)
    assert conclude_result(store, "frozen", FAILED) == finished
    assert read_result(store, "frozen") == finished
    # Only the driver knows how long they were there.
    timed = FAILED.model_copy(update={"worker_seconds": 9.0, "gpu_seconds": 4.5})
    paid = finished.model_copy(update={"worker_seconds": 9.0, "gpu_seconds": 4.5})
    assert conclude_result(store, "frozen", timed) == read_result(store, "frozen") == paid


def test_a_hang_is_added_to_those_before_if_they_can_be_read(store: Outage) -> None:
    first = HangRecord(attempt=1, seconds=61.5, why="rank 0 on a, in the test", ranks=())
    second = first.model_copy(update={"attempt": 2})
    key = f"frozen/{HANGS}"
    assert read_hangs(store, key) == ()
    add_hang(store, "frozen", first)
    add_hang(store, "frozen", second)
    assert read_hangs(store, key) == (first, second)
    store.put(key, b"{")
    add_hang(store, "frozen", second)
    assert read_hangs(store, key) == (second,)
