"""A store → its audit: which images two of its splits share, exactly or nearly.

Exact duplicates have the same sha256 of their pixels. For near ones, descriptors give each image a
few candidates in the other split, and the pixels of the two images decide (`likeness`).
"""

import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tlcluster.audit.descriptors import Descriptors, Rows
from tlcluster.audit.likeness import SHIFT, distances, reduced
from tlcluster.audit.scan import Split, pixels, scan
from tlcluster.audit.search import Candidates, candidates
from tlcluster.cinic10 import ORIGINS
from tlcluster.dataset.shards import Index
from tlcluster.errors import UserError
from tlcluster.leakage import COMPARED, Audit, Duplicate, Method, Overlap
from tlcluster.meter import meter
from tlcluster.storage.protocol import Store

CANDIDATES = 5
SIMILARITY = 0.6
SMALLEST = 8
"""Pixels a side. Of smaller images nothing is left to compare."""
DIGITS = 4
"""Decimals of a distance. Further ones depend on how a processor rounds sums."""


class Nearest(NamedTuple):
    """For each image of a split, the nearest image of another one, as far as it is a candidate."""

    split: str
    other: str
    partner: Rows
    """(n,) its row in `other`; −1 if there is no candidate."""
    distance: npt.NDArray[np.float64]
    """(n,); infinite if there is none."""
    exact: npt.NDArray[np.bool_]
    """(n,) whether the pixels are the same."""


class Findings(NamedTuple):
    """The audit, and the distances that it follows from."""

    audit: Audit
    nearest: tuple[Nearest, ...]
    """Of each two splits that were compared, also beyond the bound."""
    splits: Mapping[str, Split]


def find_duplicates(
    store: Store, index: Index, index_sha256: str, bound: float, show: bool
) -> Findings:
    """Read a data set once, and the images that may be duplicates a second time.

    Args:
        store: holds the data set.
        index: of it.
        index_sha256: of the index.
        bound: the largest distance of near duplicates.
        show: show progress on standard error.

    Raises:
        UserError: the images are too small, or a shard is missing, damaged or not what the index
            describes.
        StoreUnavailable: the store does not answer.
    """
    height, width, channels = index.image_shape
    if min(height, width) < SMALLEST or channels != 3:
        raise UserError(
            f"{store.url}: its images are {width}×{height} with {channels} channels; an audit "
            f"takes RGB images of at least {SMALLEST} pixels a side: ingest them again with "
            "--image-size 32 into another place"
        )
    compared = [pair for pair in COMPARED if index.splits.keys() >= set(pair)]
    names = [name for name in index.splits if any(name in pair for pair in compared)]
    with meter("reading", sum(map(index.rows, names)), "images", show) as advance:
        splits = {name: scan(store, index, name, advance) for name in names}
    nearest = tuple(
        nearest_images(store, index, splits[name], splits[other], show) for name, other in compared
    )
    method = Method(bound=bound, shift=SHIFT, candidates=CANDIDATES, similarity=SIMILARITY)
    audit = Audit(
        dataset=index.dataset,
        index_sha256=index_sha256,
        method=method,
        overlaps=tuple(_overlap(one, splits, index.classes, bound) for one in nearest),
        repeated={name: split.images - len(set(split.digests)) for name, split in splits.items()},
        duplicates={
            name: tuple(_duplicates(of, splits, bound))
            for name in names
            if (of := [one for one in nearest if one.split == name])
        },
    )
    return Findings(audit, nearest, splits)


def nearest_images(store: Store, index: Index, split: Split, other: Split, show: bool) -> Nearest:
    """For each image of `split`, the nearest one of `other`; arguments as of `find_duplicates`."""
    first = {digest: row for row, digest in reversed(list(enumerate(other.digests)))}
    partner = np.array([first.get(digest, -1) for digest in split.digests])
    exact = partner >= 0
    distance = np.where(exact, 0.0, np.inf)
    rest = np.flatnonzero(~exact)
    queries = Descriptors(split.descriptors.even[rest], split.descriptors.odd[rest])
    step = f"{split.name} in {other.name}"
    with meter(step, len(rest), "images", show) as advance:
        found = candidates(
            queries, other.descriptors, least=SIMILARITY, most=CANDIDATES, advance=advance
        )
    pairs = Candidates(rest[found.query], found.other)
    apart = _distances(store, index, split.name, other.name, pairs, show)
    # The nearest of each image, of equally near ones the first.
    order = np.lexsort((pairs.other, apart, pairs.query))
    query, begins = np.unique(pairs.query[order], return_index=True)
    best = order[begins]
    partner[query], distance[query] = pairs.other[best], apart[best]
    return Nearest(split.name, other.name, partner, distance, exact)


def _distances(
    store: Store, index: Index, split: str, other: str, pairs: Candidates, show: bool
) -> npt.NDArray[np.float64]:
    """The distance of each pair, from the pixels of the images in it."""
    rows, left = np.unique(pairs.query, return_inverse=True)
    partners, right = np.unique(pairs.other, return_inverse=True)
    with meter("fetching", len(rows) + len(partners), "images", show) as advance:
        images = pixels(store, index, split, rows, reduced, advance)
        others = pixels(store, index, other, partners, reduced, advance)
    with meter("checking", len(pairs.query), "pairs", show) as advance:
        return np.round(distances(images, others, left, right, advance), DIGITS)


def _overlap(
    nearest: Nearest, splits: Mapping[str, Split], classes: tuple[str, ...], bound: float
) -> Overlap:
    split, other = splits[nearest.split], splits[nearest.other]
    same = nearest.distance <= bound
    rows = np.flatnonzero(same)
    return Overlap(
        split=split.name,
        other=other.name,
        images=split.images,
        exact=int(nearest.exact.sum()),
        near=int((same & ~nearest.exact).sum()),
        other_class=int((split.labels[rows] != other.labels[nearest.partner[rows]]).sum()),
        by_class=_counts(split.labels[rows], classes),
        by_origin=_counts(split.origins[rows], ORIGINS),
    )


def _counts(of: Rows, names: tuple[str, ...]) -> dict[str, int]:
    """Name → how often; only those that occur, in the order of `names`."""
    counts = Counter(of.tolist())
    return {name: counts[place] for place, name in enumerate(names) if counts[place]}


def _duplicates(
    nearest: Iterable[Nearest], splits: Mapping[str, Split], bound: float
) -> Iterable[Duplicate]:
    """The images of a split that are within the bound of one of another, in index order."""
    for row, one in nearest_of_all(nearest):
        if one.distance[row] <= bound:
            split, other, partner = splits[one.split], splits[one.other], int(one.partner[row])
            yield Duplicate(
                row=row,
                source=split.sources[row],
                label=int(split.labels[row]),
                partner_split=other.name,
                partner_row=partner,
                partner_source=other.sources[partner],
                partner_label=int(other.labels[partner]),
                distance=float(one.distance[row]),
                exact=bool(one.exact[row]),
            )


def nearest_of_all(nearest: Iterable[Nearest]) -> Iterable[tuple[int, Nearest]]:
    """Each image of a split with where its nearest partner is: an exact one before a near one, of
    equals the first.

    Args:
        nearest: of one split, in several others.
    """
    options = list(nearest)
    for row in range(len(options[0].partner)):
        yield row, min(options, key=functools.partial(_rank, row))


def _rank(row: int, nearest: Nearest) -> tuple[bool, float]:
    return not nearest.exact[row], float(nearest.distance[row])
