"""Mixup: which images of a step are mixed, and in which shares. Pure functions.

Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018). Partners are drawn among the rows
of one canonical reader (`tlcluster.dataset.order`). Each of 1, 2, 4 or 8 workers has all rows of
its readers, so that the pairs do not depend on their number. Any other number of workers cuts
readers, and rows find partners within their part.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.special

from tlcluster.dataset.order import READERS, Ints, RowBatch, random_bits, shuffled


class Mix(NamedTuple):
    """How the rows of one worker's batch are mixed."""

    partners: Ints
    """int64 (n,): place in this worker's batch of the row that each row is mixed with. It may be
    the row itself."""
    shares: npt.NDArray[np.float32]
    """float32 (n,): share of the row itself, at least a half."""


def unmixed(rows: int) -> Mix:
    """Each row stays as it is."""
    return Mix(np.arange(rows), np.ones(rows, np.float32))


def mixed(rows: RowBatch, *, seed: int, epoch: int, step: int, alpha: float) -> Mix:
    """How a step mixes its rows.

    Args:
        rows: of this worker.
        seed: the run's seed.
        epoch: counts from 1.
        step: of the epoch; counts from 0.
        alpha: shares have the distribution Beta(alpha, alpha); 0 mixes nothing.
    """
    partners, shares = unmixed(len(rows.row))
    if not alpha:
        return Mix(partners, shares)
    begins = rows.global_rows * np.arange(READERS + 1) // READERS
    readers = np.searchsorted(begins, rows.position, side="right") - 1
    for reader in np.unique(readers).tolist():
        own = np.flatnonzero(readers == reader)
        # Keys of another length than those of the order of rows.
        partners[own] = own[shuffled(len(own), seed, epoch, step, reader, 0)]
        unit = random_bits(len(own), seed, epoch, step, reader, 1) / 2.0**64
        drawn = scipy.special.betaincinv(alpha, alpha, unit)
        # Mixing a with b is mixing b with a: the row itself has the larger share.
        shares[own] = np.maximum(drawn, 1.0 - drawn)
    return Mix(partners, shares)
