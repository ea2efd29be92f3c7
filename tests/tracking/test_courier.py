"""What is sent to a tracker again, and what is not."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
from tracked_run import ENTRIES, LONG, FakeSink, an_entry

from tlcluster.tracking import courier as couriers
from tlcluster.tracking.courier import Courier


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The courier's clock; a test moves it."""
    found = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(couriers.time, "monotonic", lambda: found.now)
    return found


def a_courier(sink: FakeSink, said: list[str] | None = None) -> Courier:
    return Courier(lambda: sink, (said if said is not None else []).append)


def test_what_has_changed_is_sent_once() -> None:
    sink = FakeSink()
    courier = a_courier(sink)
    courier.bring(ENTRIES)
    courier.bring(ENTRIES)
    assert sink.sent == ["run", "a", "b", "c"]
    more = an_entry("b", epochs={1: {"loss": 1.0}})
    courier.bring([*ENTRIES[:2], more, ENTRIES[3]])
    assert sink.sent[4:] == ["b"]
    # Another driver may have made the run as a whole at the same time.
    courier.bring([*ENTRIES[:2], more, ENTRIES[3]], last=True)
    assert sink.sent[5:] == ["run"]
    assert (courier.why, courier.place) == (None, "the place")


def test_after_a_failure_there_is_a_pause_that_grows_and_the_end_does_not_wait_for_it(
    clock: SimpleNamespace,
) -> None:
    sink, said = FakeSink("run"), list[str]()
    courier = a_courier(sink, said)
    tries = []
    sink.send = lambda entry: tries.append(clock.now) or FakeSink.send(sink, entry)  # type: ignore[method-assign,func-returns-value]
    for _ in range(40):
        courier.bring(ENTRIES)
        clock.now += 5
    assert [b - a for a, b in pairwise(tries)] == [15, 30, 60]
    courier.bring(ENTRIES, last=True)
    assert len(tries) == 5
    # Once, and without the password.
    assert said == ["run is refused by https://…@host"]
    assert courier.why == said[0]
    sink.failing.clear()
    courier.bring(ENTRIES, last=True)
    assert sink.sent == ["run", "a", "b", "c"]
    assert courier.why is None


def test_one_replicate_that_is_refused_keeps_no_other_from_being_sent(
    clock: SimpleNamespace,
) -> None:
    sink = FakeSink("a", "b")
    courier = a_courier(sink)
    courier.bring(ENTRIES)
    assert sink.sent == ["run"]
    clock.now += LONG
    courier.bring(ENTRIES)
    assert sink.sent == ["run", "c"]
    assert "a is refused" in str(courier.why)


def test_a_library_that_cannot_be_imported_is_a_failure_like_another() -> None:
    said: list[str] = []

    def broken() -> FakeSink:
        raise ImportError("no module named protobuf\nsecond line")

    courier = Courier(broken, said.append)
    courier.bring(ENTRIES)
    assert said == ["no module named protobuf second line"]
    assert courier.place == ""
