"""A worker's rows → NumPy batches, with the shards fetched in the background.

The stream looks a bounded number of rows ahead. A few threads fetch, verify and
map the shards of those rows, in the order in which they are needed. A worker
fetches only the shards that it reads, a batch waits only for its own shards,
and memory is bounded whatever the size of the split.
"""

import itertools
import math
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from tlcluster.dataset.order import Ints, RowBatch
from tlcluster.dataset.shards import Index, fetched_shard
from tlcluster.storage.protocol import Store

Key = TypeVar("Key", bound=Hashable)
"""What names a shard in a stream: its number, or the number with what else it depends on."""

THREADS = 4
"""Shards fetched at once. One connection rarely fills a link, and hashing takes time too."""

SHARDS_AHEAD = 8
"""New shards in flight or open beyond those of the next batch: one for each canonical reader,
since all readers may need a new shard at the same step."""

ROWS_AHEAD = 2**16
"""Limit of rows to look ahead: two windows of each of eight readers, about 2 MB of row numbers."""

BATCH_WEIGHT = 64
"""What a batch counts towards `ROWS_AHEAD` besides its rows. It bounds the number of small
batches."""

IDLE_BYTES = 2**26
"""Bytes of shards that stay open although no row within sight needs them. A window may hold a few
rows of a shard, far apart, and opening the shard again means verifying all of it again."""

MAPPED_BYTES = 2**20
"""Smaller shards are read into memory instead of mapped. A batch may need hundreds of them, each
map takes a file descriptor, and a process often has only 1024."""


class Batch(NamedTuple):
    """One worker's part of a global batch; n may be 0. The caller owns the arrays."""

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
    labels: npt.NDArray[Any]
    """Unsigned integers (rows,)."""


class Plan(NamedTuple, Generic[Key]):
    """One batch to read: its rows, and the shards that they come from."""

    rows: RowBatch
    places: dict[Key, Ints]
    """Shard → the places in the batch that its rows take, int64."""


def planned(rows: RowBatch, key: Callable[[int], Key]) -> Plan[Key]:
    """Sort the rows of a batch by shard.

    Args:
        rows: the batch.
        key: position of a shard in the split → its key in the stream.
    """
    by_shard = np.argsort(rows.shard, kind="stable")
    shards = rows.shard[by_shard]
    cuts = [0, *(np.flatnonzero(shards[1:] != shards[:-1]) + 1).tolist(), len(shards)]
    places = {key(int(shards[a])): by_shard[a:b] for a, b in itertools.pairwise(cuts) if a < b}
    return Plan(rows, places)


def stream(store: Store, index: Index, split: str, batches: Iterable[RowBatch]) -> Iterator[Batch]:
    """Read the rows of `batches`, in order, from the shards of a split.

    `batches` comes from `tlcluster.dataset.order`. It may hold several epochs, one after
    another; the shards of the next epoch are then fetched while the current one ends.
    Closing the iterator early drops the queued fetches and does not wait for those under
    way; their threads end with them.

    Raises:
        UserError: the data set has no such split, or a shard is not what the index says.
        CorruptObject, ObjectMissing, StoreUnavailable: at the batch that needs the shard,
            even if the background met the error earlier.
    """
    infos = index.shards(split)

    def load(number: int) -> Shard:
        info = infos[number]
        rows = fetched_shard(store, info, index)
        if info.bytes < MAPPED_BYTES:
            rows = np.array(rows)
        return Shard(np.asarray(rows["image"]), np.asarray(rows["label"]))

    plans = (planned(rows, int) for rows in batches)
    return stream_from(load, plans, row_shape=index.image_shape, dtype=np.uint8)


def stream_from(
    load: Callable[[Key], Shard],
    plans: Iterable[Plan[Key]],
    *,
    row_shape: tuple[int, ...],
    dtype: npt.DTypeLike,
) -> Iterator[Batch]:
    """Like `stream`, from shards of any kind: `load` fetches or makes a shard by its key.

    `load` is called from several threads, in the order in which shards are needed. Its
    exceptions are raised at the batch that needs the shard.

    Args:
        load: key → shard.
        plans: the batches to read; see `planned`.
        row_shape: shape of one row's input.
        dtype: of the inputs.
    """
    shelf = _Shelf(load, row_shape, dtype)
    source = iter(plans)
    ahead: deque[Plan[Key]] = deque()
    weight = 0
    try:
        head = next(source, None)
        if head is not None:
            shelf.request(head)
        while head is not None:
            shelf.ahead.difference_update(head.places)
            while weight < ROWS_AHEAD and len(shelf.ahead) < SHARDS_AHEAD:
                following = next(source, None)
                if following is None:
                    break
                shelf.request(following)
                ahead.append(following)
                weight += _weight(following)
            yield shelf.read(head)
            shelf.release(head)
            head = ahead.popleft() if ahead else None
            weight -= _weight(head) if head is not None else 0
    finally:
        shelf.close()


def _weight(plan: Plan[Key]) -> int:
    return len(plan.rows.row) + BATCH_WEIGHT


def _copy(shard: Shard, rows: Ints, places: Ints, inputs: npt.NDArray[Any], labels: Ints) -> None:
    inputs[places] = shard.inputs[rows]
    labels[places] = shard.labels[rows]


def _whole_rows(inputs: npt.NDArray[Any]) -> npt.NDArray[np.void]:
    """Inputs (n, …) as n opaque values, one for each row, over the same memory.

    NumPy gathers opaque values with one copy of memory per row. Rows in a larger record
    it copies dimension by dimension, which takes half as long again.
    """
    size = math.prod(inputs.shape[1:])
    return inputs.reshape(len(inputs), size).view(f"V{size * inputs.itemsize}")[:, 0]


class _Shelf(Generic[Key]):
    """The shards that are open or being fetched."""

    def __init__(
        self, load: Callable[[Key], Shard], row_shape: tuple[int, ...], dtype: npt.DTypeLike
    ) -> None:
        self.ahead: set[Key] = set()
        """Requested shards that no batch has come to yet."""
        self._load, self._row_shape, self._dtype = load, row_shape, np.dtype(dtype)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="shards")
        self._shards: dict[Key, Future[Shard]] = {}
        self._uses: Counter[Key] = Counter()
        """Shard → requested batches that are not released."""
        self._idle: dict[Key, int] = {}
        """Shard without uses → its bytes, the longest idle first."""
        self._idle_bytes = 0

    def request(self, plan: Plan[Key]) -> None:
        """Keep the shards of a batch until it is released; fetch those that are missing."""
        for shard in plan.places:
            if shard not in self._shards:
                self._shards[shard] = self._pool.submit(self._opened, shard)
                self.ahead.add(shard)
            self._idle_bytes -= self._idle.pop(shard, 0)
            self._uses[shard] += 1

    def _opened(self, key: Key) -> Shard:
        shard = self._load(key)
        row = shard.inputs.dtype, shard.inputs.shape[1:]
        if row != (self._dtype, self._row_shape):
            # Opaque values of another size would be cut or padded silently.
            raise TypeError(f"rows of shard {key} are {row[0]} {row[1]}")
        return shard._replace(inputs=_whole_rows(shard.inputs))

    def read(self, plan: Plan[Key]) -> Batch:
        """Wait for the shards of a requested batch and copy its rows."""
        rows = plan.rows
        n = len(rows.row)
        inputs = np.empty((n, *self._row_shape), dtype=self._dtype)
        labels = np.empty(n, dtype=np.int64)
        whole = _whole_rows(inputs)
        for key, places in plan.places.items():
            # No local name for the shard: an exception that the caller keeps would keep its file.
            _copy(self._shards[key].result(), rows.row[places], places, whole, labels)
        return Batch(inputs, labels, rows.sample, rows.position, rows.global_rows)

    def release(self, plan: Plan[Key]) -> None:
        """Close shards that no requested batch needs, except the most recent ones."""
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
        # An exception that the caller keeps refers to this object; it must not keep files open.
        self._shards.clear()
