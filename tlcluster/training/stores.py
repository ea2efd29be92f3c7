"""The stores of one worker. All of them wait while storage does not answer."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tlcluster.errors import StoreUnavailable
from tlcluster.storage.cache import NodeCache
from tlcluster.storage.open import open_store
from tlcluster.storage.patient import patient
from tlcluster.storage.protocol import Store
from tlcluster.training.task import Task

PAUSE_SECONDS = 5.0
"""Longest pause between two tries to open a store."""

Away = Callable[[float, str], None]
"""Called with the seconds that storage has been away and the reason, and with `(0.0, "")` once it
answers again."""


class Stores(NamedTuple):
    """Where a worker reads and writes."""

    images: Store
    run: Store
    features: Store | None
    """Features of the frozen base; None computes them each time they are needed."""


def open_stores(task: Task, *, away: Away, should_stop: Callable[[], bool]) -> Stores:
    """Open what a task names. Opening, reading and writing wait for storage that is away.

    Args:
        task: names the stores and how long to wait, `storage_wait`.
        away: see `Away`; called from any thread.
        should_stop: True ends the waiting; called from any thread.

    Raises:
        StoreUnavailable: a store has been away for longer.
        UserError: a store cannot be used.
    """
    cache = NodeCache(Path(task.cache) if task.cache else None, task.cache_bytes)

    def opened(url: str, create: bool) -> Store:
        store = _when_there(lambda: open_store(url, cache, create), task.storage_wait, away)
        return patient(store, task.storage_wait, on_wait=away, should_stop=should_stop)

    return Stores(
        images=opened(task.store, create=False),
        run=opened(task.run, create=True),
        features=opened(task.features, create=True) if task.features is not None else None,
    )


def _when_there(opened: Callable[[], Store], seconds: float, away: Away) -> Store:
    began = time.monotonic()
    waited = False
    while True:
        try:
            store = opened()
        except StoreUnavailable as error:
            passed = time.monotonic() - began
            if passed >= seconds:
                raise
            away(passed, str(error))
            waited = True
            time.sleep(min(PAUSE_SECONDS, seconds - passed))
        else:
            if waited:
                away(0.0, "")
            return store
