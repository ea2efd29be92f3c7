"""What `check` runs on a node: an actor with a worker's environment and resources."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import ray

from tlcluster.checkup.disk import Memory, disk_finding
from tlcluster.checkup.finding import Finding, explained
from tlcluster.checkup.link import Link, Listener, Place, links, port_range
from tlcluster.checkup.stores import Mark, data_finding, output_finding
from tlcluster.checkup.versions import versions
from tlcluster.dataset.shards import ShardInfo
from tlcluster.storage.cache import NodeCache

AT_ONCE = ("device", "data", "output", "disk")
"""The checks that need nothing of other nodes: methods of `Inspector`."""


class Brief(NamedTuple):
    """What every inspector is told. It holds no credential of the user's."""

    store: str
    index_sha256: str
    shard: ShardInfo
    """One to read."""
    output: str
    mark: Mark
    cache: str | None
    """Folder of the cache, as a node understands it."""
    cache_bytes: int
    cached: Sequence[tuple[str, int]]
    """Sha256 and bytes of what a run fetches into the cache."""
    threads: int
    gpus: float
    """Reserved for a worker."""
    connects: bool
    """Whether workers connect with each other."""
    secret: bytes
    """What inspectors show each other when they connect."""


class Arrival(NamedTuple):
    """An inspector's first answer."""

    versions: Mapping[str, str]
    place: Place | None
    """Where it listens; None if it does not."""
    error: str
    """Why it cannot listen."""
    ports: str
    """Where the servers of workers listen."""


class Inspector:
    """Carries out the checks of one node. Its methods run in threads, at the same time."""

    def __init__(self, brief: Brief, rank: int, memory: Memory) -> None:
        """
        Args:
            brief: what to check.
            rank: the number of this inspector, from 0.
            memory: what a run keeps in shared memory here.
        """
        self._brief, self._rank, self._memory = brief, rank, memory
        self._listener: Listener | None = None

    def arrive(self) -> Arrival:
        error = ""
        if self._brief.connects:
            host = ray.util.get_node_ip_address()
            try:
                self._listener = Listener(host, self._brief.secret)
            except OSError as failure:
                error = f"{host}: {failure.strerror or failure}"
        place = self._listener.place if self._listener else None
        return Arrival(versions(), place, error, port_range())

    def clock(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def device(self) -> Finding:
        # The driver imports this module too, and needs no TensorFlow.
        from tlcluster.training.device_probe import device_finding  # noqa: PLC0415

        told = self._brief
        return explained("device", lambda: device_finding(told.gpus, told.threads, told.cache))

    def data(self) -> Finding:
        told = self._brief
        return explained("data", lambda: data_finding(told.store, told.index_sha256, told.shard))

    def output(self) -> Finding:
        told = self._brief
        return explained("output", lambda: output_finding(told.output, told.mark, self._rank))

    def disk(self) -> Finding:
        told = self._brief
        cache = NodeCache(Path(told.cache) if told.cache else None, told.cache_bytes)
        return explained("disk", lambda: disk_finding(cache, told.cached, self._memory))

    def links(self, places: Sequence[Place]) -> list[Link]:
        return links(places, self._brief.secret)

    def close(self) -> None:
        if self._listener:
            self._listener.close()
