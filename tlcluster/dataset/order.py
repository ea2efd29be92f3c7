"""Which rows a worker reads in which order: pure functions of seed, epoch and sizes.

The order of an epoch is fixed by (seed, epoch, global batch). It does not depend
on the number of workers, which cut each global batch into contiguous slices.

    shards   shuffled and laid end to end: a line of all rows
    readers  the line is cut into 8 ranges, one for each canonical reader
    windows  a reader goes through its range in windows of whole shards and
             shuffles the rows within each window
    batches  a global batch of n rows takes n·(r+1)//8 - n·r//8 rows of reader r,
             one reader after another

If W divides 8, a worker's slice [n·rank//W, n·(rank+1)//W) begins and ends at the
border between two readers, whatever n is. So each of 1, 2, 4 or 8 workers only
reads the shards of its own readers. Any other number works too and shares shards.

The fixed number of canonical readers follows MosaicML Streaming's
`num_canonical_nodes`. Random numbers come from `SeedSequence` and Philox's raw
output, whose streams NumPy keeps stable (NEP 19); `Generator.permutation` has
no such guarantee.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

READERS = 8
"""Canonical readers. Changing it changes every order: results and golden tests too."""

MIN_WINDOW = 1024
"""Least rows of a window (the last of a reader may be smaller).

A window ends at the first shard boundary at or after this many rows. So a shard
is open during one window only, and the first batch waits for about one shard per
reader. A longer window would mix better and start later. Eight readers mix 64
batches of 128 if shards are tiny, and 8 shards otherwise.
"""


class RowBatch(NamedTuple):
    """The rows that one worker reads for one step; all arrays are int64 (n,), n may be 0."""

    shard: Ints
    """Position of the shard in the split."""
    row: Ints
    """Row within the shard."""
    sample: Ints
    """The row's number in the split, in index order."""
    position: Ints
    """Its place in the global batch, 0 … global_rows - 1; ascending without gaps."""
    global_rows: int
    """Rows of the global batch, all workers together: the divisor of a summed loss."""


def steps_per_epoch(rows: int, global_batch: int) -> int:
    """Global batches of an epoch; the last may be partial."""
    return -(-rows // global_batch)


def training_batches(
    shard_rows: Sequence[int] | Ints,
    *,
    seed: int,
    epoch: int,
    global_batch: int,
    rank: int,
    world_size: int,
    first_step: int = 0,
) -> Iterator[RowBatch]:
    """The rows of worker `rank` in one epoch of training, one batch per step.

    Over all ranks, every row comes exactly once. All ranks take the same number
    of steps, `steps_per_epoch`; a batch may be empty if the global batch has fewer
    rows than there are workers. Starting in the middle with `first_step` does not
    compute the skipped steps. Memory is one window per reader and a few numbers
    per shard, however many rows there are.

    Args:
        shard_rows: rows of each shard of the split, in index order, each at least 1.
        seed, epoch: non-negative.
        global_batch: rows of a step, all workers together, at least 1.
        rank, world_size: 0 ≤ rank < world_size.
        first_step: steps to skip at the start.
    """
    line = _Line(np.asarray(shard_rows, dtype=np.int64), seed, epoch)
    rows = int(line.ends[-1])
    full_steps, rest = divmod(rows, global_batch)
    begins = [
        full_steps * _begin(global_batch, reader) + _begin(rest, reader)
        for reader in range(READERS + 1)
    ]
    readers = [_Reader(line, r, begins[r], begins[r + 1]) for r in range(READERS)]

    for step in range(first_step, steps_per_epoch(rows, global_batch)):
        size = global_batch if step < full_steps else rest
        low, high = _slice(size, rank, world_size)
        parts = [np.empty((3, 0), dtype=np.int64)]
        for reader in range(READERS):
            begin, end = _begin(size, reader), _begin(size, reader + 1)
            first, last = max(low, begin), min(high, end)
            if first < last:
                done = step * (_begin(global_batch, reader + 1) - _begin(global_batch, reader))
                parts += readers[reader].rows(done + first - begin, done + last - begin)
        shard, row, sample = np.concatenate(parts, axis=1)
        yield RowBatch(shard, row, sample, np.arange(low, high), size)


def evaluation_batches(
    shard_rows: Sequence[int] | Ints, *, batch: int, rank: int, world_size: int
) -> Iterator[RowBatch]:
    """The rows of worker `rank` in index order, each row of the split on one worker, once.

    The worker takes the contiguous samples [N·rank//W, N·(rank+1)//W) in
    batches of `batch`, the last may be smaller. Workers may differ in their
    number of steps by one, and a worker without rows takes none: a step must not
    contain anything collective. `position` and `global_rows` refer to the worker's
    own batch.
    """
    ends = _ends(np.asarray(shard_rows, dtype=np.int64))
    low, high = _slice(int(ends[-1]), rank, world_size)
    for first in range(low, high, batch):
        sample = np.arange(first, min(first + batch, high))
        shard = np.searchsorted(ends, sample, side="right") - 1
        yield RowBatch(shard, sample - ends[shard], sample, np.arange(len(sample)), len(sample))


def _slice(rows: int, rank: int, world_size: int) -> tuple[int, int]:
    return rows * rank // world_size, rows * (rank + 1) // world_size


def _begin(size: int, reader: int) -> int:
    """Start of a reader's rows in a global batch of `size` rows."""
    return size * reader // READERS


def _ends(sizes: Ints) -> Ints:
    """Sizes (n,) → where each begins, and the end of the last; (n + 1,)."""
    return np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(sizes)))


def random_bits(n: int, seed: int, *key: int) -> npt.NDArray[np.uint64]:
    """64 random bits n times, drawn from (seed, key); uint64 (n,)."""
    return np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)).random_raw(n)


def shuffled(n: int, seed: int, *key: int) -> Ints:
    """0 … n - 1 in an order drawn from (seed, key); n < 2**32."""
    draws = random_bits(n, seed, *key)
    # Draws with their number in the low bits are all different, so that every sorting algorithm
    # gives the same order. This is also faster than argsort.
    bits = np.uint64(n.bit_length())
    keys = (draws << bits) | np.arange(n, dtype=np.uint64)
    keys.sort()
    return (keys & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)


class _Line:
    """The rows of a split in an epoch: shuffled shards laid end to end."""

    def __init__(self, shard_rows: Ints, seed: int, epoch: int) -> None:
        self.seed = seed
        self.epoch = epoch
        self.shards = shuffled(len(shard_rows), seed, epoch)
        self.ends = _ends(shard_rows[self.shards])
        self.samples = _ends(shard_rows)[self.shards]
        """Sample number of the first row of each shard on the line."""


class _Reader:
    """A canonical reader: a range [begin, end) of the line, shuffled window by window."""

    def __init__(self, line: _Line, reader: int, begin: int, end: int) -> None:
        self._line = line
        self._reader = reader
        self._begin = begin
        self._windows = _windows(line.ends, begin, end)
        self._loaded = range(0)
        self._table = np.empty((3, 0), dtype=np.int64)

    def rows(self, first: int, last: int) -> Iterator[Ints]:
        """Its rows [first, last), as parts (3, k) of shard, row, sample."""
        first, last = self._begin + first, self._begin + last
        while first < last:
            if first not in self._loaded:
                self._load(int(np.searchsorted(self._windows, first, side="right")) - 1)
            stop = min(last, self._loaded.stop)
            yield self._table[:, first - self._loaded.start : stop - self._loaded.start]
            first = stop

    def _load(self, window: int) -> None:
        line = self._line
        self._loaded = range(int(self._windows[window]), int(self._windows[window + 1]))
        order = shuffled(len(self._loaded), line.seed, line.epoch, self._reader, window)
        places = self._loaded.start + order
        shard = np.searchsorted(line.ends, places, side="right") - 1
        row = places - line.ends[shard]
        self._table = np.stack((line.shards[shard], row, line.samples[shard] + row))


def _windows(ends: Ints, begin: int, end: int) -> Ints:
    """Where the windows of a range begin, and the end of the last."""
    begins = [begin]
    while (wanted := begins[-1] + MIN_WINDOW) < end:
        begins.append(min(int(ends[np.searchsorted(ends, wanted)]), end))
    if begins[-1] < end:
        begins.append(end)
    return np.array(begins, dtype=np.int64)
