"""From the records to the tracker: a run is followed until it ends."""

import sys
import threading
from types import SimpleNamespace

import pytest
from fake_run import epoch_records as epochs
from fake_run import (
    experiment_result,
    write_epochs,
    write_result,
)
from tracked_run import LONG, FakeSink, by_name, some, until

from tlcluster.records import MANIFEST, REPORT
from tlcluster.storage.directory import DirectoryStore
from tlcluster.tracking import sender as senders
from tlcluster.tracking.messages import Note, Order
from tlcluster.tracking.sender import follow


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> FakeSink:
    found = FakeSink()
    monkeypatch.setitem(sys.modules, "fake_sink", SimpleNamespace(Sink=lambda: found))
    monkeypatch.setattr(senders, "POLL_SECONDS", 0.01)
    return found


def test_a_run_is_followed_until_it_ends_and_then_its_report_is_sent(
    store: DirectoryStore, sink: FakeSink
) -> None:
    ended, notes = threading.Event(), list[Note]()
    order = Order(module="fake_sink", run=store.url, keys=frozenset(some().folders))
    thread = threading.Thread(target=lambda: notes.append(follow(order, ended, notes.append)))
    thread.start()
    until(lambda: len(sink.sent) == 3)
    write_epochs(store, "augmented", epochs("augmented", 3))
    until(lambda: len(sink.sent) == 4)
    write_result(store, "augmented", experiment_result("augmented"))
    store.put(MANIFEST, some(status="finished").model_dump_json().encode())
    for name in ("results.json", "curves.svg", "index.html"):
        store.put(f"{REPORT}/{name}", b"x")
    ended.set()
    thread.join(LONG)
    assert sink.sent[:4] == [*by_name(store), "augmented, seed 524"]
    assert set(sink.sent[4:]) == {some().name, "augmented, seed 524"}
    assert sink.reports == [["curves.svg", "index.html", "results.json"]]
    assert notes == [Note(text="the place", last=True, sent=True)]


def test_a_report_that_is_not_whole_is_not_sent(store: DirectoryStore, sink: FakeSink) -> None:
    store.put(f"{REPORT}/results.json", b"x")
    ended = threading.Event()
    ended.set()
    assert follow(Order(module="fake_sink", run=store.url, keys=None), ended, print).sent
    assert sink.reports == []


def test_the_last_note_says_why_something_is_not_there(
    store: DirectoryStore, sink: FakeSink
) -> None:
    ended, notes = threading.Event(), list[Note]()
    ended.set()
    order = Order(module="fake_sink", run=store.url, keys=None)
    sink.failing.add("augmented, seed 524")
    last = follow(order, ended, notes.append)
    assert (last.sent, last.text) == (
        False, "augmented, seed 524 is refused by https://…@host"
    )  # fmt: skip
    sink.failing.clear()
    store.put("augmented/result.json", b"{torn")
    assert "augmented/result.json: damaged record" in follow(order, ended, notes.append).text
    store.delete(MANIFEST)
    assert "no run here" in follow(order, ended, notes.append).text
    # It is in the last note, so it need not be said before.
    assert notes == []
