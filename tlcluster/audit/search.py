"""Descriptors of two sets of images → for each image of the one, the most similar of the other."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tlcluster.audit.descriptors import Descriptors, Floats, Rows

QUERIES = 512
OTHERS = 2048
"""Images of each set that are compared at once. The similarities of a block, 4 MiB, stay in the
processor's cache while they are looked through."""


class Candidates(NamedTuple):
    """Pairs of images that may be duplicates, ordered by `query`, the most similar first."""

    query: Rows
    other: Rows
    """Positions in the two sets, (pairs,)."""


def candidates(
    queries: Descriptors,
    others: Descriptors,
    *,
    least: float,
    most: int,
    advance: Callable[[int], None],
) -> Candidates:
    """For each query, at most `most` of the others, of at least this similarity.

    An image is as similar to another as the image or its mirror image is, whichever is more.

    Args:
        queries: whose candidates are looked for.
        others: among whom.
        least: the least similarity, above 0.
        most: candidates for each query.
        advance: is called with the number of queries that were done.
    """
    query, other = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for at in range(0, queries.images, QUERIES):
        block = Descriptors(queries.even[at : at + QUERIES], queries.odd[at : at + QUERIES])
        found = _of_block(block, others, least, most)
        row, column = np.nonzero(found >= 0)
        query.append(row + at)
        other.append(found[row, column])
        advance(block.images)
    return Candidates(np.concatenate(query), np.concatenate(other))


def _of_block(queries: Descriptors, others: Descriptors, least: float, most: int) -> Rows:
    """int64 (queries, most): the most similar first; −1 if there are no more."""
    rows = np.arange(queries.images)
    best = np.full((queries.images, most), np.float32(least))
    found = np.full((queries.images, most), -1)
    for at in range(0, others.images, OTHERS):
        similar = similarity(
            queries, Descriptors(others.even[at : at + OTHERS], others.odd[at : at + OTHERS])
        )
        better = rows[similar.max(axis=1) > best[:, -1]]
        if not better.size:
            continue
        some = similar[better]
        count = min(most, some.shape[1])
        top = np.argpartition(-some, count - 1, axis=1)[:, :count]
        values = np.concatenate([best[better], np.take_along_axis(some, top, 1)], axis=1)
        places = np.concatenate([found[better], top + at], axis=1)
        # Stable: of equals, those found first stay first.
        order = np.argsort(-values, axis=1, kind="stable")[:, :most]
        best[better] = np.take_along_axis(values, order, 1)
        found[better] = np.take_along_axis(places, order, 1)
    return found


def similarity(queries: Descriptors, others: Descriptors) -> Floats:
    """(queries, others), from −1 to 1: the larger one of an image's and its mirror image's."""
    similar = queries.even @ others.even.T
    odd = queries.odd @ others.odd.T
    similar += np.abs(odd, out=odd)
    return similar
