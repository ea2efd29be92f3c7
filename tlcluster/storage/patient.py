"""A store that waits while the storage behind it does not answer."""

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tlcluster.errors import StoreUnavailable, UserError
from tlcluster.storage.protocol import LARGEST, Store, StoredObject

Result = TypeVar("Result")

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
_SLICE_SECONDS = 0.1
"""How often a pause asks whether to stop."""


def _silent(seconds_away: float, why: str) -> None: ...


def _never() -> bool:
    return False


def told(say: Callable[[str], None]) -> Callable[[float, str], None]:
    """An `on_wait` for `patient` that says one line when storage is away and one when it is back.

    Args:
        say: shows a line.
    """
    began: list[float] = []

    def on_wait(seconds_away: float, why: str) -> None:
        if why and not began:
            began.append(time.monotonic() - seconds_away)
            say(f"storage away: {why}")
        elif began and not why:
            say(f"storage is back after {time.monotonic() - began.pop():.0f} s")

    return on_wait


def patient(
    store: Store,
    seconds: float,
    *,
    on_wait: Callable[[float, str], None] = _silent,
    should_stop: Callable[[], bool] = _never,
) -> Store:
    """The same store, but an operation that raises StoreUnavailable is tried again.

    The pauses between tries grow from one second to half a minute, with jitter.
    All threads that use the store share one count of the time it has been away:
    it starts with the first failure and ends with the next success. No operation
    waits longer than `seconds` itself, even if others succeed meanwhile.

    Args:
        store: the store that does the work.
        seconds: how long it may be away before StoreUnavailable is raised.
        on_wait: called before every pause with the seconds that the store has
            been away and the reason, and with `(0.0, "")` once it works again.
            Calls come from any thread, one at a time. It must not use the store.
        should_stop: asked several times a second during a pause. When it
            returns True the pause ends and StoreUnavailable is raised.
    """
    return _PatientStore(store, seconds, on_wait, should_stop)


class _PatientStore:
    def __init__(
        self,
        store: Store,
        seconds: float,
        on_wait: Callable[[float, str], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._store = store
        self._seconds = seconds
        self._on_wait = on_wait
        self._should_stop = should_stop
        self._lock = threading.Lock()
        self._away_since: float | None = None
        """Monotonic time of the first failure since the last success."""

    @property
    def url(self) -> str:
        return self._store.url

    def list(self, prefix: str = "") -> list[StoredObject]:
        return self._call(lambda: self._store.list(prefix))

    def get(self, key: str, most: int = LARGEST) -> bytes:
        return self._call(lambda: self._store.get(key, most))

    def put(self, key: str, data: bytes | Path) -> None:
        self._call(lambda: self._store.put(key, data))

    def put_if_absent(self, key: str, data: bytes | Path) -> bool:
        return self._call(lambda: self._store.put_if_absent(key, data))

    def delete(self, key: str) -> None:
        self._call(lambda: self._store.delete(key))

    def fetch(self, key: str, *, sha256: str, size: int) -> Path:
        return self._call(lambda: self._store.fetch(key, sha256=sha256, size=size))

    def _call(self, operation: Callable[[], Result]) -> Result:
        longest = FIRST_PAUSE_SECONDS
        began: float | None = None
        while True:
            try:
                result = operation()
            except StoreUnavailable as error:
                now = time.monotonic()
                began = now if began is None else began
                left = self._failed(now, began, str(error))
                jitter = random.uniform(0.5, 1.0)  # noqa: S311 - no secret
                if left <= 0 or not self._pause(min(left, longest * jitter)):
                    raise
                longest = min(2 * longest, LONGEST_PAUSE_SECONDS)
            except UserError:
                # The storage answered, only not as hoped: ObjectMissing, for example.
                self._worked()
                raise
            else:
                self._worked()
                return result

    def _failed(self, now: float, began: float, why: str) -> float:
        """Record a failure of an operation; returns the seconds that it may still wait."""
        # The lock keeps the order of calls: the last one after a success is on_wait(0.0, "").
        with self._lock:
            if self._away_since is None:
                self._away_since = now
            away = max(0.0, now - self._away_since)
            left = self._seconds - max(away, now - began)
            if left > 0:
                self._on_wait(away, why)
            return left

    def _worked(self) -> None:
        if self._away_since is None:
            return
        with self._lock:
            if self._away_since is not None:
                self._away_since = None
                self._on_wait(0.0, "")

    def _pause(self, seconds: float) -> bool:
        """Sleep; False if it was ended by a stop request."""
        end = time.monotonic() + seconds
        while not self._should_stop():
            left = end - time.monotonic()
            if left <= 0:
                return True
            time.sleep(min(left, _SLICE_SECONDS))
        return False
