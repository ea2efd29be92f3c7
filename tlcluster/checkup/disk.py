"""Whether a node has the disk and shared memory that a run needs on it."""

import os
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from tlcluster.checkup.finding import Finding, size
from tlcluster.cinic10 import SPLITS
from tlcluster.dataset.shards import Index
from tlcluster.errors import os_errors_explained
from tlcluster.storage.cache import NodeCache

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - only looked at
NCCL_BYTES = 2**28
"""Shared memory that NCCL needs for the GPUs of a node; Docker's default is a quarter of it."""

WAY_OUT = "free some space or name another folder with --cache"


class Space(NamedTuple):
    """Space of a file system, in bytes."""

    total: int
    free: int
    """For this account."""


class Memory(NamedTuple):
    """What a run keeps in shared memory, in bytes."""

    object_store: int
    """Size of Ray's object store on the node."""
    weights: int
    """What a run puts into it."""
    nccl: int


def space(folder: Path) -> Space:
    """The space of a folder's file system; the folder need not exist yet."""
    status = os.statvfs(existing(folder))
    return Space(status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize)


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(one for one in (folder, *folder.parents) if one.exists())


def shards(index: Index) -> list[tuple[str, int]]:
    """Sha256 and bytes of all shards of a data set."""
    return [(info.sha256, info.bytes) for split in SPLITS for info in index.shards(split)]


def cache_fault(cache: NodeCache, needed: int, free: int) -> str:
    """Why a run would find the disk of the cache full, in one line; empty if it would not.

    Args:
        cache: of this node.
        needed: bytes by which it will grow.
        free: bytes that are free on its disk.
    """
    if needed <= free:
        return ""
    return (
        f"cache folder {cache.folder}: {size(free)} are free, and the shards take {size(needed)}; "
        f"{WAY_OUT}"
    )


def full_disk(cache: NodeCache, objects: Collection[tuple[str, int]]) -> str:
    """Why these objects do not fit on this node's disk, in one line; empty if they do."""
    return cache_fault(cache, cache.growth(objects), space(cache.folder).free)


def memory_fault(memory: Memory, found: Space) -> str:
    """Why a node's shared memory is too small for a run, in one line; empty if it is not."""
    # Ray keeps its object store elsewhere if there was not enough shared memory at its start.
    weights = memory.weights if memory.object_store <= found.total else 0
    needed = weights + memory.nccl
    if needed <= found.free:
        return ""
    return (
        f"{SHARED_MEMORY}: {size(found.free)} are free, and a run takes {size(needed)}; remove "
        "what others left there, or give the node or container more (docker run --shm-size 2g, in "
        "Kubernetes an emptyDir in memory)"
    )


def disk_finding(cache: NodeCache, objects: Collection[tuple[str, int]], memory: Memory) -> Finding:
    """Judge this node's disk and shared memory.

    Args:
        cache: the node's.
        objects: sha256 and bytes of what a run fetches into the cache; none if storage is a
            directory, which is read in place.
        memory: what a run keeps in shared memory.

    Raises:
        UserError: the cache's folder cannot be written.
    """
    found, problems = [], []
    if objects:
        with os_errors_explained(f"cache folder {cache.folder}", WAY_OUT):
            free = space(cache.folder).free
            needed = cache.growth(objects)
            # It has no name, so that nothing is left of it even if this process is killed.
            with tempfile.TemporaryFile(dir=existing(cache.folder)) as file:
                file.write(b"tlcluster")
        found.append(f"cache {size(free)}, needs {size(needed)}")
        problems.append(cache_fault(cache, needed, free))
    else:
        found.append("no cache needed")
    if SHARED_MEMORY.is_dir():
        shared = space(SHARED_MEMORY)
        found.append(f"{SHARED_MEMORY} {size(shared.free)}")
        problems.append(memory_fault(memory, shared))
    return Finding("disk", "; ".join(found), "; ".join(filter(None, problems)))
