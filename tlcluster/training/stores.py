"""The stores of one worker. All of them wait while storage does not answer."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tlcluster.checkup.disk import full_disk, shards, space
from tlcluster.checkup.finding import size
from tlcluster.checkup.stores import is_directory
from tlcluster.dataset.shards import Index
from tlcluster.errors import UserError
from tlcluster.storage.cache import NodeCache
from tlcluster.storage.open import open_store
from tlcluster.storage.patient import patient
from tlcluster.storage.protocol import Store
from tlcluster.training.task import Task

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
    """Open what a task names. Reading and writing wait for storage that is away.

    Args:
        task: names the stores and how long to wait, `storage_wait`.
        away: see `Away`; called from any thread.
        should_stop: True ends the waiting; called from any thread.

    Raises:
        UserError: an address is none of a store.
    """
    cache = node_cache(task)

    def opened(url: str) -> Store:
        # Without a first look, which would refuse a store that is away just now.
        store = open_store(url, cache, check=False)
        return patient(store, task.storage_wait, on_wait=away, should_stop=should_stop)

    return Stores(
        images=opened(task.store),
        run=opened(task.run),
        features=opened(task.features) if task.features is not None else None,
    )


def node_cache(task: Task) -> NodeCache:
    """The cache of this node."""
    return NodeCache(Path(task.cache) if task.cache else None, task.cache_bytes)


def refuse_full_disk(task: Task, stores: Stores, index: Index) -> None:
    """Look whether the shards fit on this node's disk; a directory is read in place.

    Raises:
        UserError: they do not.
    """
    if is_directory(stores.images):
        return
    if wrong := full_disk(node_cache(task), shards(index)):
        raise UserError(f"{socket.gethostname()}: {wrong}")


def refuse_full_output(features: Store, missing: Callable[[], int]) -> None:
    """Look whether features fit on the disk of the output folder; a bucket has room.

    Args:
        features: the store of the features.
        missing: counts the bytes of those that are not there yet.

    Raises:
        UserError: they do not.
    """
    if not is_directory(features):
        return
    needed, free = missing(), space(Path(features.url)).free
    if needed > free:
        raise UserError(
            f"{socket.gethostname()}: output {features.url}: {size(free)} are free, and features "
            f"of the base take {size(needed)}; free some space, name another --output, or compute "
            "them each time with --no-feature-cache"
        )
