"""What the stream of batches promises, on shards in a real directory store."""

import contextlib
import functools
import hashlib
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tlcluster.dataset import stream as module
from tlcluster.dataset.order import READERS, RowBatch, evaluation_batches, training_batches
from tlcluster.dataset.shards import Index, ShardInfo, encode, row_dtype
from tlcluster.dataset.stream import Batch, Shard, planned, stream, stream_from
from tlcluster.errors import UserError
from tlcluster.storage.cache import OBJECTS, NodeCache
from tlcluster.storage.directory import DirectoryStore
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import CorruptObject, ObjectMissing

SHAPE = (4, 5, 3)


def make_rows(n: int) -> np.ndarray:
    rows = np.zeros(n, dtype=row_dtype(12, SHAPE))
    rows["image"] = np.random.default_rng(n).integers(0, 256, (n, *SHAPE), dtype=np.uint8)
    rows["label"] = np.random.default_rng(n + 1).integers(0, 10, n)
    return rows


def fill(folder: Path, shard_rows: list[int]) -> tuple[DirectoryStore, Index, np.ndarray]:
    """A store with one split, its index, and all rows of the split in index order."""
    rows = make_rows(sum(shard_rows))
    store = DirectoryStore(folder)
    infos = []
    for number, (begin, end) in enumerate(itertools.pairwise(np.cumsum([0, *shard_rows]))):
        key = f"train/{number:05d}.npy"
        data = encode(rows[begin:end])
        store.put(key, data)
        sha256 = hashlib.sha256(data).hexdigest()
        infos.append(ShardInfo(key=key, rows=int(end - begin), bytes=len(data), sha256=sha256))
    index = Index(
        dataset="random",
        classes=tuple("abcdefghij"),
        image_shape=SHAPE,
        splits={"train": tuple(infos)},
    )
    return store, index, rows


def order(index: Index, world_size: int = 1, rank: int = 0, **changes: Any) -> list[RowBatch]:
    arguments = {"seed": 7, "epoch": 0, "global_batch": 32, **changes}
    return list(
        training_batches(index.shard_rows("train"), rank=rank, world_size=world_size, **arguments)
    )


class Watched(DirectoryStore):
    """A directory store that notes what is fetched and can hold fetches back."""

    def __init__(self, folder: Path, free: set[str] | None = None) -> None:
        super().__init__(folder)
        self.fetched: list[str] = []
        self.free = free
        """Keys that are not held back; None: nothing is."""
        self.gate = threading.Event()

    def fetch(self, key: str, *, sha256: str, size: int) -> Path:
        self.fetched.append(key)
        if self.free is not None and key not in self.free:
            assert self.gate.wait(60)
        return super().fetch(key, sha256=sha256, size=size)


def keys_of(index: Index, batches: list[RowBatch]) -> set[str]:
    infos = index.shards("train")
    return {infos[int(shard)].key for batch in batches for shard in batch.shard}


def mapped(folder: Path) -> set[str]:
    """Files below a folder that this process has mapped or open; none known but on Linux."""
    if sys.platform != "linux":
        return set()
    lines = Path("/proc/self/maps").read_text().splitlines()
    found = {line.split(maxsplit=5)[5] for line in lines if str(folder) in line}
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(descriptor.readlink()))
    return {path for path in found if path.startswith(str(folder))}


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("shards_")]


def assert_nothing_left(folder: Path) -> None:
    for thread in threads():
        thread.join(60)
    assert not threads()
    assert mapped(folder) == set()


@pytest.fixture
def map_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Map small shards too."""
    monkeypatch.setattr(module, "MAPPED_BYTES", 0)


def assert_read(batches: list[Batch], plan: list[RowBatch], rows: np.ndarray) -> None:
    """The batches are what a naive reader makes of the plan."""
    assert len(batches) == len(plan)
    for batch, expected in zip(batches, plan, strict=True):
        assert np.array_equal(batch.inputs, rows["image"][expected.sample])
        assert np.array_equal(batch.labels, rows["label"][expected.sample])
        assert np.array_equal(batch.samples, expected.sample)
        assert np.array_equal(batch.positions, expected.position)
        assert batch.global_rows == expected.global_rows


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 90), min_size=1, max_size=12),
    st.integers(1, 100),
    st.integers(1, 9),
    st.sampled_from([0, 2**20]),
)
@example([1], 1, 9, 0)
@example([3, 2], 200, 3, 0)
def test_batches_are_what_a_naive_reader_reads(
    shard_rows: list[int], batch: int, world_size: int, mapped_bytes: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAPPED_BYTES", mapped_bytes)
        store, index, rows = fill(Path(folder), shard_rows)
        for rank in range(world_size):
            plan = order(index, world_size, rank, global_batch=batch)
            assert_read(list(stream(store, index, "train", plan)), plan, rows)
            plan = list(
                evaluation_batches(shard_rows, batch=batch, rank=rank, world_size=world_size)
            )
            assert_read(list(stream(store, index, "train", plan)), plan, rows)


def test_arrays_are_contiguous_and_the_callers_own(tmp_path: Path) -> None:
    store, index, rows = fill(tmp_path, [50, 50])
    batches = stream(store, index, "train", order(index))
    first = next(batches)
    assert first.inputs.dtype == np.uint8
    assert first.inputs.shape == (32, *SHAPE)
    assert {array.dtype for array in first[1:4]} == {np.dtype(np.int64)}
    assert first.inputs.flags.c_contiguous
    first.inputs[:] = 0
    rest = [next(batches), *batches]
    assert_read(rest, order(index)[1:], rows)


def test_several_epochs_may_follow_one_another(tmp_path: Path) -> None:
    store, index, rows = fill(tmp_path, [40] * 12)
    plan = [batch for epoch in range(3) for batch in order(index, epoch=epoch)]
    assert_read(list(stream(store, index, "train", iter(plan))), plan, rows)


@pytest.mark.usefixtures("map_all")
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_a_worker_fetches_what_it_reads_and_each_shard_once_a_visit(
    tmp_path: Path, world_size: int
) -> None:
    _, index, _ = fill(tmp_path, [1500] * 30)
    fetches = 0
    for rank in range(world_size):
        plan = order(index, world_size, rank, global_batch=64)
        store = Watched(tmp_path)
        assert len(list(stream(store, index, "train", plan))) == len(plan)
        assert set(store.fetched) == keys_of(index, plan)
        fetches += len(store.fetched)
    shared = READERS if READERS % world_size == 0 else 3 * READERS
    # A shard that two readers share is visited by each.
    assert fetches <= 30 + shared - 1


def test_a_shard_whose_rows_are_far_apart_is_fetched_once(tmp_path: Path) -> None:
    _, index, _ = fill(tmp_path, [2, 2])
    far = 3 * module.ROWS_AHEAD // module.BATCH_WEIGHT
    shards = [1, *[0] * far, 1]
    one = np.zeros(1, dtype=np.int64)
    plan = [RowBatch(np.array([shard]), one, np.array([2 * shard]), one, 1) for shard in shards]
    store = Watched(tmp_path)
    assert len(list(stream(store, index, "train", plan))) == far + 2
    assert len(store.fetched) == 2


def test_the_first_batch_does_not_wait_for_shards_of_later_ones(tmp_path: Path) -> None:
    _, index, rows = fill(tmp_path, [1200] * 30)
    plan = order(index)
    needed = keys_of(index, plan[:1])
    assert len(needed) < len(keys_of(index, plan))
    store = Watched(tmp_path, free=needed)
    batches = stream(store, index, "train", plan)
    assert_read([next(batches)], plan[:1], rows)
    store.gate.set()
    assert_read(list(batches), plan[1:], rows)


def test_shards_are_fetched_ahead_of_need_but_not_all_of_them(tmp_path: Path) -> None:
    _, index, _ = fill(tmp_path, [1200] * 60)
    plan = order(index)
    store = Watched(tmp_path)
    batches = stream(store, index, "train", plan)
    first = next(batches)
    needed = keys_of(index, plan[:1])
    while len(set(store.fetched)) < len(needed) + module.SHARDS_AHEAD:
        time.sleep(0.001)
    assert len(first.labels) == 32
    batches.close()  # type: ignore[attr-defined]
    # What is looked ahead ends with the batch that asks for the last shard.
    assert len(set(store.fetched)) < len(needed) + module.SHARDS_AHEAD + READERS


@pytest.mark.usefixtures("map_all")
def test_a_bounded_number_of_shards_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, index, _ = fill(tmp_path, [1100] * 120)
    monkeypatch.setattr(module, "IDLE_BYTES", 4 * 1100 * np.prod(SHAPE))
    most = 0
    for batch in stream(store, index, "train", order(index, global_batch=512)):
        assert batch.global_rows
        most = max(most, len(mapped(tmp_path)))
    # Two shards a reader while it changes from one to the next, those ahead, and four idle.
    assert most <= 2 * READERS + module.SHARDS_AHEAD + READERS + 4


def test_small_shards_take_no_file_descriptors(tmp_path: Path) -> None:
    store, index, rows = fill(tmp_path, [3] * 200)
    plan = order(index, global_batch=600)
    batches = stream(store, index, "train", plan)
    assert_read([next(batches)], plan, rows)
    # The batch has needed all 200, and the stream has not ended.
    assert mapped(tmp_path) == set()


def test_shards_come_from_s3_through_the_cache_of_the_node(tmp_path: Path, s3_url: str) -> None:
    local, index, rows = fill(tmp_path / "local", [60] * 12)
    remote = open_store(s3_url, NodeCache(tmp_path / "cache"))
    for info in index.shards("train"):
        remote.put(info.key, local.get(info.key))
    plan = order(index, 2, 1)
    assert_read(list(stream(remote, index, "train", plan)), plan, rows)
    kept = {path.name for path in (tmp_path / "cache" / OBJECTS).iterdir() if len(path.name) == 64}
    read = keys_of(index, plan)
    assert kept == {info.sha256 for info in index.shards("train") if info.key in read}


def test_an_endless_order_is_looked_at_a_bounded_part_ahead(tmp_path: Path) -> None:
    store, index, _ = fill(tmp_path, [50])
    taken = 0

    def endless() -> Iterator[RowBatch]:
        nonlocal taken
        nothing = np.zeros(0, dtype=np.int64)
        for batch in itertools.cycle(order(index)):
            taken += 2
            yield batch
            yield RowBatch(nothing, nothing, nothing, nothing, 0)

    batches = stream(store, index, "train", endless())
    assert len(next(batches).labels) == 32
    assert len(next(batches).labels) == 0
    assert taken <= module.ROWS_AHEAD / module.BATCH_WEIGHT + 4


def damage(folder: Path, key: str) -> None:
    data = bytearray((folder / key).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / key).write_bytes(data)


@pytest.mark.usefixtures("map_all")
def test_a_damaged_shard_is_an_error_at_the_batch_that_needs_it(tmp_path: Path) -> None:
    store, index, rows = fill(tmp_path, [1200] * 30)
    plan = order(index)
    key = max(keys_of(index, plan) - keys_of(index, plan[:200]))
    good = next(i for i in range(len(plan)) if key in keys_of(index, plan[i : i + 1]))
    damage(tmp_path, key)
    batches = stream(store, index, "train", plan)
    assert_read(list(itertools.islice(batches, good)), plan[:good], rows)
    with pytest.raises(CorruptObject) as caught:
        next(batches)
    assert caught.value.key == key
    # The error is still held here, and holds the frames it came through.
    assert_nothing_left(tmp_path)


def test_a_damaged_shard_that_no_batch_needs_is_no_error(tmp_path: Path) -> None:
    store, index, rows = fill(tmp_path, [1200] * 30)
    plan = order(index)[:100]
    others = {info.key for info in index.shards("train")} - keys_of(index, plan)
    for key in others:
        damage(tmp_path, key)
    assert others
    assert_read(list(stream(store, index, "train", plan)), plan, rows)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    store, index, _ = fill(tmp_path, [10, 10])
    store.delete("train/00001.npy")
    with pytest.raises(ObjectMissing, match=r"train/00001\.npy"):
        list(stream(store, index, "train", order(index)))


def test_a_shard_that_the_index_describes_wrongly_is_refused(tmp_path: Path) -> None:
    store, index, _ = fill(tmp_path, [10, 10])
    infos = index.shards("train")
    wrong = infos[1].model_copy(update={"rows": 9})
    index = index.model_copy(update={"splits": {"train": (infos[0], wrong)}})
    with pytest.raises(UserError, match=r"train/00001\.npy is not a NumPy file of 9 rows"):
        list(stream(store, index, "train", order(index)))


def test_a_split_that_is_not_there_is_named(tmp_path: Path) -> None:
    store, index, _ = fill(tmp_path, [10])
    with pytest.raises(UserError, match="no split 'valid'"):
        next(stream(store, index, "valid", order(index)))


@pytest.mark.usefixtures("map_all")
def test_nothing_is_left_when_all_is_read(tmp_path: Path) -> None:
    store, index, _ = fill(tmp_path, [1200] * 10)
    batches = stream(store, index, "train", order(index))
    next(batches)
    assert mapped(tmp_path) or sys.platform != "linux"
    assert len(list(batches)) == len(order(index)) - 1
    assert_nothing_left(tmp_path)


@pytest.mark.usefixtures("map_all")
@pytest.mark.parametrize("taken", [0, 1, 100])
def test_nothing_is_left_when_the_iterator_is_closed_early(tmp_path: Path, taken: int) -> None:
    store, index, _ = fill(tmp_path, [1200] * 30)
    batches = stream(store, index, "train", order(index))
    assert len(list(itertools.islice(batches, taken))) == taken
    batches.close()  # type: ignore[attr-defined]
    assert_nothing_left(tmp_path)


def test_closing_does_not_wait_for_a_fetch_under_way(tmp_path: Path) -> None:
    _, index, _ = fill(tmp_path, [1200] * 30)
    plan = order(index)
    store = Watched(tmp_path, free=keys_of(index, plan[:1]))
    batches = stream(store, index, "train", plan)
    next(batches)
    while len(store.fetched) < len(keys_of(index, plan[:1])) + module.THREADS:
        time.sleep(0.001)
    batches.close()  # type: ignore[attr-defined]
    assert threads()
    assert not store.gate.is_set()
    fetched = len(store.fetched)
    store.gate.set()
    assert_nothing_left(tmp_path)
    # What was queued is dropped.
    assert len(store.fetched) == fetched


def test_a_consumer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store, index, _ = fill(tmp_path, [1200] * 30)

    def consume() -> None:
        for _ in stream(store, index, "train", order(index)):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        consume()
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize(
    "inputs",
    [np.zeros((4, 3), np.float64), np.zeros((4, 6), np.float32), np.zeros((4, 2), np.float32)],
    ids=["dtype", "longer", "shorter"],
)
def test_rows_of_another_kind_are_refused_not_cut_to_size(inputs: np.ndarray) -> None:
    shard = Shard(inputs, np.zeros(4, np.uint8))
    (rows,) = training_batches([4], seed=7, epoch=0, global_batch=4, rank=0, world_size=1)
    with pytest.raises(TypeError, match="rows of shard 0 are"):
        list(stream_from(lambda _: shard, [planned(rows, int)], row_shape=(3,), dtype=np.float32))


def test_shards_of_any_kind_are_told_apart_by_their_keys() -> None:
    """Two epochs on different views of the same shards, and one more on the first view."""
    rows = [
        batch
        for epoch in range(3)
        for batch in training_batches(
            [30, 20, 41], seed=7, epoch=epoch, global_batch=16, rank=0, world_size=1
        )
    ]
    views = ["first"] * 6 + ["second"] * 6 + ["first"] * 6
    loaded = []

    def load(key: tuple[str, int]) -> Shard:
        loaded.append(key)
        view, number = key
        begin, end = [0, 30, 50, 91][number : number + 2]
        inputs = np.arange(begin, end, dtype=np.float32)[:, None] + 1000 * (view == "second")
        return Shard(inputs, np.zeros(end - begin, np.uint8))

    plans = (
        planned(batch, functools.partial(lambda view, number: (view, number), view))
        for view, batch in zip(views, rows, strict=True)
    )
    batches = list(stream_from(load, plans, row_shape=(1,), dtype=np.float32))
    assert len(batches) == len(rows)
    for batch, view in zip(batches, views, strict=True):
        expected = batch.samples + 1000 * (view == "second")
        np.testing.assert_array_equal(batch.inputs[:, 0], expected)
    assert sorted(loaded) == [(view, n) for view in ("first", "second") for n in range(3)]
