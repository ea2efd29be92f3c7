"""Whether a process can use the stores of a run: read, write, write only if absent."""

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tlcluster.checkup.disk import space
from tlcluster.checkup.finding import Finding, size
from tlcluster.cinic10 import SPLITS
from tlcluster.dataset.shards import Index, ShardInfo, read_index
from tlcluster.errors import StoreUnavailable, UserError, os_errors_explained
from tlcluster.storage.directory import NO_LINKS
from tlcluster.storage.locks import LockTaken, process_lock
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import CorruptObject, ObjectMissing, Store

NAME = "tlcluster-check-"
"""The keys of what is written for a check begin so."""
OUTPUT_BYTES = 2**28
"""The least free space for an output directory: checkpoints and weights of the study take more."""

UNCONDITIONAL = (
    "this service has no conditional PUT; do not start two commands that write to one place at the "
    "same time"
)
NO_LOCKS = (
    "locks of this file system do not reach other processes; do not start two commands for one "
    "run at the same time"
)


class Mark(NamedTuple):
    """What the driver writes into the output, for the workers to find."""

    key: str
    content: bytes

    def of(self, rank: int) -> str:
        """The key of what one worker writes."""
        return f"{self.key}-{rank}"

    @property
    def lock(self) -> str:
        """The name of the file that the driver has locked."""
        return f"{self.key}.lock"


def new_mark() -> Mark:
    return Mark(NAME + secrets.token_hex(8), secrets.token_bytes(32))


def is_directory(store: Store) -> bool:
    return "://" not in store.url


def smallest_shard(index: Index) -> ShardInfo:
    """The shard that is read for a check."""
    return min(
        (info for split in SPLITS for info in index.shards(split)), key=lambda info: info.bytes
    )


def data_finding(url: str, index_sha256: str, shard: ShardInfo) -> Finding:
    """Read the index and one shard of the data store.

    Args:
        url: of the store.
        index_sha256: of its index, as the driver read it.
        shard: one of its shards.

    Raises:
        UserError: the store cannot be read, or is not the driver's.
        StoreUnavailable: it does not answer.
    """
    store = open_store(url)
    _, found = read_index(store)
    if found != index_sha256:
        raise UserError(
            f"--store {url}: holds another data set here than at the driver (sha256 {found[:12]}… "
            f"and {index_sha256[:12]}…); name a store that all nodes share"
        )
    began = time.perf_counter()
    content = store.get(shard.key)
    seconds = time.perf_counter() - began
    digest = hashlib.sha256(content).hexdigest()
    if digest != shard.sha256:
        raise CorruptObject(shard.key, f"sha256 {shard.sha256}", f"sha256 {digest}")
    return Finding("data", f"read, {size(len(content))} at {size(len(content) / seconds)}/s")


def exercise(store: Store, key: str) -> str:
    """Write an object, read it, and remove it again.

    Returns:
        What a person should know about the store, in one line; usually empty.

    Raises:
        UserError: the store cannot be used for the output of a run.
        StoreUnavailable: it does not answer.
    """
    try:
        replaced = _written_twice(store, key)
    except BaseException:
        _removed(store, [key])
        raise
    # A run removes views and checkpoints, so it must be allowed to.
    store.delete(key)
    return "" if not replaced and getattr(store, "conditional", True) else UNCONDITIONAL


def _written_twice(store: Store, key: str) -> bool:
    """Write an object and read it; returns whether it can be written again as if it were absent."""
    content = secrets.token_bytes(32)
    # False if the answer to our own request was lost: the content decides.
    store.put_if_absent(key, content)
    try:
        found = store.get(key)
    except ObjectMissing:
        found = b""
    if found != content:
        raise UserError(
            f"{store.url}/{key}: cannot be read right after it was written; name a store in "
            "--output that shows every object at once"
        )
    return store.put_if_absent(key, secrets.token_bytes(32))


def output_finding(url: str, mark: Mark, rank: int) -> Finding:
    """Find the driver's mark in the output, and exercise the store.

    Raises:
        UserError: the store cannot be used.
        StoreUnavailable: it does not answer.
    """
    # A directory that is not there is one that is not shared.
    store = open_store(url, check="://" in url)
    try:
        seen = store.get(mark.key)
    except ObjectMissing:
        seen = b""
    if seen != mark.content:
        raise UserError(
            f"--output {url}: what the driver writes there is not seen here; name a place that all "
            "nodes share: s3://BUCKET/PREFIX, or a directory of a shared file system"
        )
    note = exercise(store, mark.of(rank))
    found = ["written, read, removed"]
    if not is_directory(store):
        found.append("no conditional put" if note else "conditional put")
        return Finding("output", "; ".join(found), note=f"--output {url}: {note}" if note else "")
    folder = Path(store.url)
    with os_errors_explained(f"--output {url}", "name a place that this account can use"):
        locks, links = locks_reach(folder / mark.lock), has_links(folder, mark.of(rank))
        free = space(folder).free
    if not locks:
        found.append("no locks")
        note = NO_LOCKS
    found.append("hard links" if links else "no hard links")
    found.append(f"{size(free)} free")
    fault = ""
    if free < OUTPUT_BYTES:
        fault = (
            f"--output {url}: {size(free)} are free, and a run takes {size(OUTPUT_BYTES)} and "
            "more; free some space or name another place"
        )
    return Finding("output", "; ".join(found), fault, f"--output {url}: {note}" if note else "")


def locks_reach(path: Path) -> bool:
    """Whether a lock that the driver holds is seen here."""
    try:
        with process_lock(path, wait=False):
            return False
    except LockTaken:
        return True


def has_links(folder: Path, name: str) -> bool:
    """Whether a file system has hard links."""
    first, second = folder / f"{name}.file", folder / f"{name}.link"
    try:
        first.touch(exist_ok=False)
        os.link(first, second)
    except OSError as error:
        if error.errno in NO_LINKS:
            return False
        raise
    finally:
        first.unlink(missing_ok=True)
        second.unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def marked(output: Store, mark: Mark, ranks: int) -> Iterator[None]:
    """Write the driver's mark and hold its lock; afterwards nothing is left of the check.

    Args:
        output: the store of the output.
        mark: the driver's.
        ranks: how many workers write, whose objects are removed as well.
    """
    keys = [mark.key, *map(mark.of, range(ranks))]
    with contextlib.ExitStack() as stack:
        stack.callback(_removed, output, keys)
        output.put(mark.key, mark.content)
        if is_directory(output):
            lock = Path(output.url, mark.lock)
            with os_errors_explained(lock, "name a place in --output that this account can use"):
                stack.callback(lock.unlink, missing_ok=True)
                stack.enter_context(process_lock(lock, wait=False))
        yield


def _removed(store: Store, keys: list[str]) -> None:
    # A worker that was stopped in between may have left something.
    for key in keys:
        with contextlib.suppress(StoreUnavailable, UserError):
            store.delete(key)
