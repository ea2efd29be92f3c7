"""A patient store: it waits for storage that is away, says so, and gives up in time."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import tlcluster.storage.patient
from tlcluster.errors import StoreUnavailable
from tlcluster.storage.open import open_store
from tlcluster.storage.patient import LONGEST_PAUSE_SECONDS, patient
from tlcluster.storage.protocol import LARGEST, ObjectMissing, Store, StoredObject

AWAY = StoreUnavailable("s3://bucket: no answer")


class Clock:
    """Time that passes while somebody sleeps, and by a microsecond whenever it is asked for."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        self.now += 1e-6
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


class Storage:
    """A store that is away between some times of its clock; an operation takes no time."""

    url = "s3://bucket"

    def __init__(self, clock: Clock, *away: tuple[float, float]) -> None:
        self.clock = clock
        self.away = [(1000 + begin, 1000 + end) for begin, end in away]
        self.tries: list[float] = []

    def _answer(self, *_: object, **__: object) -> None:
        self.tries.append(self.clock.now - 1000)
        if any(begin <= self.clock.now < end for begin, end in self.away):
            raise AWAY

    def list(self, prefix: str = "") -> list[StoredObject]:
        self._answer()
        return [StoredObject(prefix, 1)]

    def get(self, key: str, _most: int = LARGEST) -> bytes:
        self._answer()
        if key == "missing":
            raise ObjectMissing(key, self.url)
        return key.encode()

    def put(self, key: str, data: bytes | Path) -> None:
        self._answer(key, data)

    def put_if_absent(self, key: str, data: bytes | Path) -> bool:
        self._answer(key, data)
        return True

    def delete(self, key: str) -> None:
        self._answer(key)

    def fetch(self, key: str, *, sha256: str, size: int) -> Path:
        self._answer()
        return Path(key, sha256, str(size))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(tlcluster.storage.patient, "time", fake)
    return fake


def heard(into: list[tuple[float, str]]) -> Callable[[float, str], None]:
    return lambda away, why: into.append((away, why))


@pytest.mark.parametrize(
    ("operation", "result"),
    [
        (lambda store: store.list("a"), [("a", 1)]),
        (lambda store: store.get("a"), b"a"),
        (lambda store: store.put("a", b""), None),
        (lambda store: store.put_if_absent("a", b""), True),
        (lambda store: store.delete("a"), None),
        (lambda store: store.fetch("a", sha256="b", size=1), Path("a/b/1")),
    ],
)
def test_every_operation_is_tried_again_until_the_storage_answers(
    clock: Clock, operation: Callable[[Store], object], result: object
) -> None:
    storage = Storage(clock, (0, 100))
    assert operation(patient(storage, 200)) == result
    assert len(storage.tries) > 2
    assert storage.tries[-1] >= 100


def test_without_an_outage_nothing_is_said_and_nothing_repeated(clock: Clock) -> None:
    said: list[tuple[float, str]] = []
    storage = Storage(clock)
    store = patient(storage, 10, on_wait=heard(said))
    assert store.url == storage.url
    assert store.get("a") == b"a"
    assert (said, storage.tries) == ([], [0.0])


def test_every_pause_is_announced_with_the_time_away_and_the_end_once(clock: Clock) -> None:
    said: list[tuple[float, str]] = []
    storage = Storage(clock, (0, 100))
    store = patient(storage, 200, on_wait=heard(said))
    store.get("a")
    store.get("a")
    assert [why for _, why in said] == [str(AWAY)] * (len(storage.tries) - 2) + [""]
    assert [away for away, _ in said] == pytest.approx([*storage.tries[:-2], 0.0], abs=0.001)


def test_pauses_grow_to_a_limit_and_vary(clock: Clock) -> None:
    storage = Storage(clock, (0, 1000))
    patient(storage, 2000).get("a")
    pauses = [b - a for a, b in zip(storage.tries, storage.tries[1:], strict=False)]
    assert pauses[0] <= 1.0
    assert max(pauses) <= LONGEST_PAUSE_SECONDS * 1.001
    assert min(pauses[6:]) >= LONGEST_PAUSE_SECONDS / 2
    assert len(set(pauses[6:])) > 1


@given(patience=st.integers(0, 500), outage=st.integers(0, 1000))
def test_it_waits_as_long_as_it_was_told_and_no_longer(patience: int, outage: int) -> None:
    assume(patience != outage)
    fake = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tlcluster.storage.patient, "time", fake)
        storage = Storage(fake, (0, outage))
        store = patient(storage, patience)
        if outage < patience:
            assert store.get("a") == b"a"
        elif outage > patience:
            with pytest.raises(StoreUnavailable) as caught:
                store.get("a")
            assert caught.value is AWAY
        assert storage.tries[-1] <= patience + 0.01


def test_a_second_outage_gets_the_whole_patience_again(clock: Clock) -> None:
    store = patient(Storage(clock, (0, 90), (200, 290)), 100)
    store.get("a")
    clock.now = 1200.0
    store.get("a")
    assert clock.now >= 1290


def test_when_the_patience_is_used_up_other_operations_are_tried_once(clock: Clock) -> None:
    storage = Storage(clock, (0, 1000))
    store = patient(storage, 100)
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            store.get("a")
    assert clock.now <= 1101
    clock.now = 2000.0
    assert store.get("a") == b"a"


def test_what_a_person_must_change_is_raised_at_once_and_counts_as_an_answer(clock: Clock) -> None:
    said: list[tuple[float, str]] = []
    store = patient(Storage(clock, (0, 10)), 100, on_wait=heard(said))
    with pytest.raises(ObjectMissing):
        store.get("missing")
    assert said[-1] == (0.0, "")


def test_a_stop_request_ends_the_pause(clock: Clock) -> None:
    storage = Storage(clock, (0, 1000))
    store = patient(storage, 2000, should_stop=lambda: clock.now >= 1005)
    with pytest.raises(StoreUnavailable):
        store.get("a")
    assert clock.now <= 1006


def test_one_object_that_never_comes_is_given_up_while_others_succeed(clock: Clock) -> None:
    storage = Storage(clock)
    real = storage.get

    def get(key: str, _most: int = LARGEST) -> bytes:
        if key == "bad":
            storage.put("other", b"")
            store.put("other", b"")  # another thread's success in between
            raise AWAY
        return real(key)

    storage.get = get  # type: ignore[method-assign]
    store = patient(storage, 100)
    with pytest.raises(StoreUnavailable):
        store.get("bad")
    assert clock.now <= 1101


def test_many_threads_share_one_outage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tlcluster.storage.patient, "FIRST_PAUSE_SECONDS", 0.01)
    real = open_store(str(tmp_path))
    for number in range(8):
        real.put(str(number), str(number).encode())
    back, waiting = threading.Event(), threading.Semaphore(0)
    said: list[tuple[float, str]] = []

    class Away(Storage):
        def get(self, key: str, most: int = LARGEST) -> bytes:
            if back.is_set():
                return real.get(key, most)
            waiting.release()
            raise AWAY

    store = patient(Away(Clock()), 60, on_wait=heard(said))
    with ThreadPoolExecutor(8) as pool:
        got = pool.map(lambda number: store.get(str(number)), range(8))
        for _ in range(8):
            assert waiting.acquire(timeout=60)
        back.set()
        assert list(got) == [str(number).encode() for number in range(8)]
    assert said[-1] == (0.0, "")
    assert {why for _, why in said} == {str(AWAY), ""}
