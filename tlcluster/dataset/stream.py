"""A worker's rows → NumPy batches, with the shards fetched in the background ahead of need.

The rows to come are looked at a little ahead, and the shards that they name are
fetched, verified and mapped by a few threads in that order. So a worker gets
exactly the shards it reads, a batch waits for its own shards only, and what is
held is bounded whatever the size of the split.
"""

import itertools
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tlcluster.dataset.order import Ints, RowBatch
from tlcluster.dataset.shards import Index, open_shard
from tlcluster.storage.protocol import Store

THREADS = 4
"""Shards fetched at once: one connection rarely fills a link, and hashing takes time as well."""

SHARDS_AHEAD = 8
"""New shards to have in flight or open beyond those of the next batch: one a canonical reader,
since all readers may come to a new shard at the same step."""

ROWS_AHEAD = 2**16
"""Most rows to look ahead, about 2 MB of row numbers; two windows of each of eight readers."""

BATCH_WEIGHT = 64
"""What a batch counts towards `ROWS_AHEAD` besides its rows, so that small ones are bounded too."""

IDLE_BYTES = 2**26
"""Shards kept open that no row within sight needs. A window may hold only a few rows of a shard,
far apart, and opening it again means verifying all of it again. Counted in bytes: of small
shards, which lie in memory, a window holds many."""

MAPPED_BYTES = 2**20
"""Smaller shards are read, not mapped: a batch may need hundreds of them, and each map takes a
file descriptor, of which a process often has 1024."""


class Batch(NamedTuple):
    """One worker's part of a global batch; n may be 0. The arrays are the caller's own."""

    inputs: npt.NDArray[Any]
    """What the model takes: uint8 images (n, height, width, 3), RGB in 0…255, or float32
    features (n, features). C-contiguous."""
    labels: Ints
    """int64 (n,)."""
    samples: Ints
    """int64 (n,): numbers of the rows in their split, in index order."""
    positions: Ints
    """int64 (n,): places in the global batch."""
    global_rows: int
    """Rows of the global batch, all workers together."""


class Shard(NamedTuple):
    """The rows of one shard, usually mapped from a file."""

    inputs: npt.NDArray[Any]
    """(rows, …): images or features."""
    labels: npt.NDArray[np.uint8]
    """(rows,)"""


class _Plan(NamedTuple):
    rows: RowBatch
    places: dict[int, Ints]
    """Shard → which places of the batch its rows take."""
    weight: int


def stream(store: Store, index: Index, split: str, batches: Iterable[RowBatch]) -> Iterator[Batch]:
    """Read the rows of `batches`, in order, from the shards of a split.

    `batches` comes from `tlcluster.dataset.order`. Several epochs may follow one another
    in it: the next one's shards are then fetched while the last one ends.
    Closing the iterator early drops what is queued and does not wait for the
    fetches under way, whose threads end with them.

    Raises:
        UserError: the data set has no such split, or a shard is not what the index says.
        CorruptObject, ObjectMissing: at the batch that needs the shard, however early
            the background met it.
    """
    infos = index.shards(split)

    def load(number: int) -> Shard:
        info = infos[number]
        path = store.fetch(info.key, sha256=info.sha256, size=info.bytes)
        rows = open_shard(path, info, index)
        if info.bytes < MAPPED_BYTES:
            rows = np.array(rows)
        return Shard(np.asarray(rows["image"]), np.asarray(rows["label"]))

    return stream_from(load, batches, row_shape=index.image_shape, dtype=np.uint8)


def stream_from(
    load: Callable[[int], Shard],
    batches: Iterable[RowBatch],
    *,
    row_shape: tuple[int, ...],
    dtype: npt.DTypeLike,
) -> Iterator[Batch]:
    """The same from shards of any kind: `load` fetches or makes one by its number.

    `load` is called from several threads, in the order in which shards are needed; what it
    raises is raised at the batch that needs the shard.

    Args:
        row_shape: shape of one row's input.
        dtype: of the inputs.
    """
    shelf = _Shelf(load, row_shape, dtype)
    source = map(_plan, batches)
    plans: deque[_Plan] = deque()
    weight = 0
    try:
        head = next(source, None)
        if head is not None:
            shelf.request(head)
        while head is not None:
            shelf.ahead.difference_update(head.places)
            while weight < ROWS_AHEAD and len(shelf.ahead) < SHARDS_AHEAD:
                plan = next(source, None)
                if plan is None:
                    break
                shelf.request(plan)
                plans.append(plan)
                weight += plan.weight
            yield shelf.read(head)
            shelf.release(head)
            head = plans.popleft() if plans else None
            weight -= head.weight if head is not None else 0
    finally:
        shelf.close()


def _plan(rows: RowBatch) -> _Plan:
    by_shard = np.argsort(rows.shard, kind="stable")
    shards = rows.shard[by_shard]
    cuts = [0, *(np.flatnonzero(shards[1:] != shards[:-1]) + 1).tolist(), len(shards)]
    places = {int(shards[a]): by_shard[a:b] for a, b in itertools.pairwise(cuts) if a < b}
    return _Plan(rows, places, len(shards) + BATCH_WEIGHT)


def _copy(shard: Shard, rows: Ints, places: Ints, inputs: npt.NDArray[Any], labels: Ints) -> None:
    inputs[places] = shard.inputs[rows]
    labels[places] = shard.labels[rows]


def _whole_rows(inputs: npt.NDArray[Any]) -> npt.NDArray[np.void]:
    """Inputs (n, …) as n opaque values of a row each, over the same memory.

    NumPy gathers those with one copy of memory a row; of rows in a larger record it copies
    dimension by dimension, which takes half as long again.
    """
    size = math.prod(inputs.shape[1:])
    return inputs.reshape(len(inputs), size).view(f"V{size * inputs.itemsize}")[:, 0]


class _Shelf:
    """The shards that are fetched or open at the moment."""

    def __init__(
        self, load: Callable[[int], Shard], row_shape: tuple[int, ...], dtype: npt.DTypeLike
    ) -> None:
        self.ahead: set[int] = set()
        """Requested shards that no batch has come to yet."""
        self._load, self._row_shape, self._dtype = load, row_shape, np.dtype(dtype)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="shards")
        self._shards: dict[int, Future[Shard]] = {}
        self._uses: Counter[int] = Counter()
        """Shard → requested batches that are not released."""
        self._idle: dict[int, int] = {}
        """Shard without uses → its bytes, the longest idle first."""
        self._idle_bytes = 0

    def request(self, plan: _Plan) -> None:
        """Have the shards of a batch fetched, if they are not, until it is released."""
        for shard in plan.places:
            if shard not in self._shards:
                self._shards[shard] = self._pool.submit(self._opened, shard)
                self.ahead.add(shard)
            self._idle_bytes -= self._idle.pop(shard, 0)
            self._uses[shard] += 1

    def _opened(self, number: int) -> Shard:
        shard = self._load(number)
        row = shard.inputs.dtype, shard.inputs.shape[1:]
        if row != (self._dtype, self._row_shape):
            # As opaque values they would be cut to size without a word.
            raise TypeError(f"rows of shard {number} are {row[0]} {row[1]}")
        return shard._replace(inputs=_whole_rows(shard.inputs))

    def read(self, plan: _Plan) -> Batch:
        """Wait for the shards of a requested batch and copy its rows."""
        rows = plan.rows
        n = len(rows.row)
        inputs = np.empty((n, *self._row_shape), dtype=self._dtype)
        labels = np.empty(n, dtype=np.int64)
        whole = _whole_rows(inputs)
        for number, places in plan.places.items():
            # Passed on, not kept here: an error that is held would hold the last shard's file.
            _copy(self._shards[number].result(), rows.row[places], places, whole, labels)
        return Batch(inputs, labels, rows.sample, rows.position, rows.global_rows)

    def release(self, plan: _Plan) -> None:
        """Close shards that no requested batch needs, but for the last few."""
        for shard in plan.places:
            self._uses[shard] -= 1
            if not self._uses[shard]:
                del self._uses[shard]
                self._idle[shard] = self._shards[shard].result().inputs.nbytes
                self._idle_bytes += self._idle[shard]
        while self._idle_bytes > IDLE_BYTES:
            oldest = next(iter(self._idle))
            self._idle_bytes -= self._idle.pop(oldest)
            del self._shards[oldest]

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        # An error that is kept keeps this object too; it should not keep files open.
        self._shards.clear()
