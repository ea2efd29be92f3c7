"""Mixup: the same pairs in the same shares, however many workers divide a step."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from tlcluster.dataset.order import READERS, RowBatch, training_batches
from tlcluster.training.mixup import mixed

SHARDS = np.array([300, 200, 411], np.int64)


def batch(global_batch: int, step: int, rank: int = 0, workers: int = 1) -> RowBatch:
    batches = training_batches(
        SHARDS,
        seed=5,
        epoch=2,
        global_batch=global_batch,
        rank=rank,
        world_size=workers,
        first_step=step,
    )
    return next(batches)


def pairs(rows: RowBatch, step: int, alpha: float = 0.3, seed: int = 5) -> dict[int, tuple]:  # type: ignore[type-arg]
    """Sample → its partner and its share."""
    mix = mixed(rows, seed=seed, epoch=2, step=step, alpha=alpha)
    partners, shares = rows.sample[mix.partners].tolist(), mix.shares.tolist()
    return dict(zip(rows.sample.tolist(), zip(partners, shares, strict=True), strict=True))


@settings(deadline=None, max_examples=40)
@given(
    global_batch=st.integers(1, 200),
    step=st.integers(0, 3),
    workers=st.sampled_from([2, 4, 8]),
)
def test_any_number_of_workers_that_divides_the_readers_mixes_the_same_pairs(
    global_batch: int, step: int, workers: int
) -> None:
    whole = pairs(batch(global_batch, step), step)
    parts = [pairs(batch(global_batch, step, rank, workers), step) for rank in range(workers)]
    assert {sample: pair for part in parts for sample, pair in part.items()} == whole


@pytest.mark.parametrize("workers", [3, 5, 16])
def test_with_any_other_number_each_row_has_a_partner_on_its_worker(workers: int) -> None:
    for rank in range(workers):
        rows = batch(100, 1, rank, workers)
        mix = mixed(rows, seed=5, epoch=2, step=1, alpha=0.3)
        assert sorted(mix.partners) == list(range(len(rows.row)))


def test_partners_are_of_the_same_reader_and_another_step_has_others() -> None:
    rows = batch(128, 0)
    mix = mixed(rows, seed=5, epoch=2, step=0, alpha=0.3)
    assert sorted(mix.partners) == list(range(128))
    size = 128 // READERS
    np.testing.assert_array_equal(mix.partners // size, np.arange(128) // size)
    for other in (
        mixed(rows, seed=6, epoch=2, step=0, alpha=0.3),
        mixed(rows, seed=5, epoch=3, step=0, alpha=0.3),
        mixed(rows, seed=5, epoch=2, step=1, alpha=0.3),
    ):
        assert not np.array_equal(other.partners, mix.partners)
        assert not np.array_equal(other.shares, mix.shares)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_have_the_beta_distribution_folded_at_a_half(alpha: float) -> None:
    rows = batch(900, 0)
    shares = mixed(rows, seed=5, epoch=2, step=0, alpha=alpha).shares
    assert shares.dtype == np.float32
    assert shares.min() >= 0.5

    def folded(share: np.ndarray) -> np.ndarray:
        return 1 - 2 * scipy.stats.beta.cdf(1 - share, alpha, alpha)

    assert scipy.stats.kstest(shares, folded).pvalue > 0.01


def test_nothing_is_mixed_without_mixup_and_no_rows_have_no_pairs() -> None:
    assert all(pair == (sample, 1.0) for sample, pair in pairs(batch(128, 0), 0, 0.0).items())
    assert pairs(batch(4, 0, rank=0, workers=8), 0) == {}
