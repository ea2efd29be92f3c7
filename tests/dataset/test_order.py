"""What the order of samples promises, swept over sizes, workers and batches."""

import hashlib
import itertools
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tlcluster.dataset.order import (
    MIN_WINDOW,
    READERS,
    RowBatch,
    evaluation_batches,
    steps_per_epoch,
    training_batches,
)

WORLDS = (1, 2, 3, 4, 8, 9)

sweep = settings(max_examples=60, deadline=None)


@st.composite
def epochs_to_read(draw: st.DrawFn) -> dict[str, Any]:
    """Shard sizes and what else fixes an order; from one row to tens of thousands."""
    most_rows = draw(st.sampled_from([2, 60, 3000]))
    shard_rows = draw(st.lists(st.integers(1, most_rows), min_size=1, max_size=24))
    rows = sum(shard_rows)
    return {
        "shard_rows": shard_rows,
        # At most 40 steps, or a sweep would take minutes.
        "global_batch": draw(st.integers(max(1, rows // 40), rows + 9)),
        "seed": draw(st.integers(0, 2**31 - 1)),
        "epoch": draw(st.integers(0, 300)),
    }


ONE_ROW = {"shard_rows": [1], "global_batch": 1, "seed": 0, "epoch": 0}
FEW_ROWS = {"shard_rows": [3, 2], "global_batch": 2, "seed": 0, "epoch": 0}


def epoch_of(
    world_size: int,
    shard_rows: list[int],
    *,
    seed: int = 524,
    epoch: int = 0,
    global_batch: int = 128,
    first_step: int = 0,
) -> list[list[RowBatch]]:
    """All batches of an epoch: [rank][step]."""
    return [
        list(
            training_batches(
                shard_rows,
                seed=seed,
                epoch=epoch,
                global_batch=global_batch,
                rank=rank,
                world_size=world_size,
                first_step=first_step,
            )
        )
        for rank in range(world_size)
    ]


def global_batches(ranks: list[list[RowBatch]]) -> list[list[int]]:
    """Samples of each global batch: the ranks' slices end to end."""
    return [
        list(itertools.chain.from_iterable(batch.sample.tolist() for batch in step))
        for step in zip(*ranks, strict=True)
    ]


def assert_same(one: list[RowBatch], other: list[RowBatch]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        for field in RowBatch._fields:
            assert np.array_equal(getattr(a, field), getattr(b, field))


@sweep
@given(epochs_to_read(), st.integers(1, 12))
@example(ONE_ROW, 9)
@example(FEW_ROWS, 8)
def test_every_sample_comes_exactly_once_an_epoch(case: dict[str, Any], world_size: int) -> None:
    seen = [sample for batch in global_batches(epoch_of(world_size, **case)) for sample in batch]
    assert sorted(seen) == list(range(sum(case["shard_rows"])))


@sweep
@given(epochs_to_read())
@example(ONE_ROW)
@example(FEW_ROWS)
def test_global_batches_are_the_same_for_any_number_of_workers(case: dict[str, Any]) -> None:
    orders = [global_batches(epoch_of(world_size, **case)) for world_size in WORLDS]
    assert all(order == orders[0] for order in orders)


@sweep
@given(epochs_to_read(), st.integers(1, 12))
@example(ONE_ROW, 9)
def test_all_workers_take_the_same_steps_and_the_last_partial_batch_is_one_of_them(
    case: dict[str, Any], world_size: int
) -> None:
    rows, global_batch = sum(case["shard_rows"]), case["global_batch"]
    full, rest = divmod(rows, global_batch)
    expected = [global_batch] * full + [rest] * (rest > 0)
    assert steps_per_epoch(rows, global_batch) == len(expected)
    for batches in epoch_of(world_size, **case):
        assert [batch.global_rows for batch in batches] == expected


@sweep
@given(epochs_to_read(), st.integers(1, 12))
def test_workers_share_a_global_batch_evenly_and_positions_count_through_it(
    case: dict[str, Any], world_size: int
) -> None:
    for step in zip(*epoch_of(world_size, **case), strict=True):
        lengths = [len(batch.row) for batch in step]
        assert max(lengths) - min(lengths) <= 1
        positions = np.concatenate([batch.position for batch in step])
        assert positions.tolist() == list(range(step[0].global_rows))


@sweep
@given(epochs_to_read(), st.integers(1, 12))
def test_shard_and_row_say_where_the_sample_is(case: dict[str, Any], world_size: int) -> None:
    sizes = np.array(case["shard_rows"])
    offsets = np.cumsum([0, *sizes])
    for batch in itertools.chain(*epoch_of(world_size, **case)):
        assert (offsets[batch.shard] + batch.row == batch.sample).all()
        assert ((batch.row >= 0) & (batch.row < sizes[batch.shard])).all()
        assert {array.dtype for array in batch[:4]} == {np.dtype(np.int64)}


@sweep
@given(epochs_to_read(), st.integers(1, 9), st.floats(0, 1))
def test_resuming_at_a_step_gives_the_rest_of_the_epoch(
    case: dict[str, Any], world_size: int, part: float
) -> None:
    whole = epoch_of(world_size, **case)
    first = round(part * (len(whole[0]) + 1))
    rest = epoch_of(world_size, **case, first_step=first)
    for all_batches, last_batches in zip(whole, rest, strict=True):
        assert_same(last_batches, all_batches[first:])


@sweep
@given(epochs_to_read())
def test_the_same_call_gives_the_same_batches(case: dict[str, Any]) -> None:
    for one, other in zip(epoch_of(2, **case), epoch_of(2, **case), strict=True):
        assert_same(one, other)


def test_epochs_and_seeds_differ() -> None:
    orders = [
        global_batches(epoch_of(1, [10] * 10, seed=seed, epoch=epoch))
        for seed, epoch in itertools.product(range(3), range(20))
    ]
    assert len({str(order) for order in orders}) == len(orders)


def test_the_order_of_seed_524_epoch_3_stays_the_same_for_ever() -> None:
    # Readers begin within shards, and the second batch is partial.
    (batches,) = epoch_of(1, [7, 5, 8, 3, 9, 5], epoch=3, global_batch=20)
    assert [batch.sample.tolist() for batch in batches] == [
        [20, 21, 11, 9, 8, 15, 13, 19, 17, 24, 25, 27, 0, 31, 30, 3, 4, 35, 36, 32],
        [22, 7, 10, 12, 14, 16, 18, 23, 26, 28, 29, 1, 5, 2, 6, 33, 34],
    ]
    # Windows of several shards, several windows a reader.
    (batches,) = epoch_of(1, [700] * 40, epoch=3, global_batch=1000)
    everything = np.concatenate([batch.sample for batch in batches])
    assert everything[:8].tolist() == [9278, 9461, 27323, 9174, 9155, 27378, 9356, 27524]
    digest = hashlib.sha256(everything.astype("<i8").tobytes()).hexdigest()
    assert digest == "782ed0e4a959fb7a87c8f3973554439e134a0a9ff68d0ca9bdc9aa2c9fd16373"


@sweep
@given(epochs_to_read(), st.sampled_from([w for w in range(1, READERS + 1) if READERS % w == 0]))
@example({"shard_rows": [700] * 30, "global_batch": 501, "seed": 0, "epoch": 0}, 8)
@example({"shard_rows": [20] * 30, "global_batch": 3, "seed": 0, "epoch": 0}, 8)
def test_workers_that_divide_the_readers_share_boundary_shards_only(
    case: dict[str, Any], world_size: int
) -> None:
    read = [
        {int(shard) for batch in batches for shard in batch.shard}
        for batches in epoch_of(world_size, **case)
    ]
    # The line of shards is cut at world_size - 1 places, each of which shares one shard at most.
    assert sum(map(len, read)) <= len(case["shard_rows"]) + world_size - 1


@sweep
@given(epochs_to_read(), st.integers(0, READERS - 1))
def test_a_reader_needs_a_shard_during_one_window_only(case: dict[str, Any], reader: int) -> None:
    batches = epoch_of(READERS, **case)[reader]
    shards = np.concatenate([batch.shard for batch in batches])
    longest = MIN_WINDOW + max(case["shard_rows"])
    for shard in set(shards.tolist()):
        places = np.flatnonzero(shards == shard)
        assert places[-1] - places[0] < longest


def test_a_first_batch_waits_for_about_one_shard_a_reader() -> None:
    for epoch in range(20):
        first = next(
            training_batches(
                [4096] * 320, seed=1, epoch=epoch, global_batch=128, rank=0, world_size=1
            )
        )
        for rows_of_reader in first.shard.reshape(READERS, -1):
            assert len(set(rows_of_reader.tolist())) <= 2


def test_rows_are_shuffled_evenly() -> None:
    places = np.empty((400, 64))
    for epoch in range(400):
        (batches,) = epoch_of(1, [64], epoch=epoch, global_batch=64 * READERS)
        places[epoch, batches[0].sample] = np.arange(64)
    # One shard, cut into eight stretches of eight rows: each is shuffled by itself.
    means = places.mean(axis=0).reshape(READERS, 8) - np.arange(READERS)[:, None] * 8
    # The mean of 400 uniform draws from 0 … 7 has a standard deviation of 0.115.
    assert np.abs(means - 3.5).max() < 5 * 0.115


def test_shards_move_between_readers_from_epoch_to_epoch() -> None:
    shards_of_rank_0 = {
        frozenset(int(s) for batch in epoch_of(8, [100] * 40, epoch=epoch)[0] for s in batch.shard)
        for epoch in range(10)
    }
    assert len(shards_of_rank_0) == 10


def test_memory_does_not_grow_with_the_rows() -> None:
    def peak(shards: int) -> int:
        shard_rows = np.full(shards, 4096)
        tracemalloc.start()
        batches = training_batches(
            shard_rows, seed=1, epoch=0, global_batch=1024, rank=0, world_size=1
        )
        for _ in batches:
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    # 1.3 million rows: their numbers alone would take 10 MB.
    assert peak(320) < 2_500_000
    assert peak(320) < peak(32) + 100_000


def test_a_hundred_million_rows_start_and_resume_without_a_walk() -> None:
    shard_rows = np.full(24_414, 4096)
    tracemalloc.start()
    for first_step in (0, 700_000):
        batch = next(
            training_batches(
                shard_rows,
                seed=1,
                epoch=0,
                global_batch=128,
                rank=0,
                world_size=1,
                first_step=first_step,
            )
        )
        assert len(batch.row) == 128
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8_000_000


# Evaluation


@sweep
@given(epochs_to_read(), st.integers(1, 12))
@example(ONE_ROW, 9)
def test_evaluation_reads_every_row_exactly_once_in_index_order(
    case: dict[str, Any], world_size: int
) -> None:
    shard_rows, batch = case["shard_rows"], case["global_batch"]
    offsets = np.cumsum([0, *shard_rows])
    seen: list[int] = []
    for rank in range(world_size):
        for rows in evaluation_batches(shard_rows, batch=batch, rank=rank, world_size=world_size):
            assert 1 <= len(rows.row) <= batch
            assert (offsets[rows.shard] + rows.row == rows.sample).all()
            assert (rows.row < np.array(shard_rows)[rows.shard]).all()
            assert rows.position.tolist() == list(range(len(rows.row)))
            assert rows.global_rows == len(rows.row)
            seen += rows.sample.tolist()
    assert seen == list(range(sum(shard_rows)))


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_evaluation_is_split_evenly(world_size: int) -> None:
    rows = [
        sum(
            len(batch.row)
            for batch in evaluation_batches([40, 60], batch=7, rank=rank, world_size=world_size)
        )
        for rank in range(world_size)
    ]
    assert max(rows) - min(rows) <= 1
