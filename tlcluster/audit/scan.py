"""A store → what the audit needs of each image: a hash of its pixels, a descriptor, its name."""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tlcluster.audit.descriptors import Descriptors, Rows, describe, joined
from tlcluster.audit.likeness import Images
from tlcluster.dataset.labels import file_names
from tlcluster.dataset.shards import Index, fetched_shard
from tlcluster.storage.protocol import Store


class Split(NamedTuple):
    """The images of a split, in index order, without their pixels."""

    name: str
    digests: tuple[bytes, ...]
    """sha256 of the pixels of each."""
    descriptors: Descriptors
    labels: Rows
    origins: Rows
    """Positions in `tlcluster.cinic10.ORIGINS`."""
    sources: tuple[str, ...]
    """File names."""

    @property
    def images(self) -> int:
        return len(self.digests)


def scan(store: Store, index: Index, name: str, advance: Callable[[int], None]) -> Split:
    """Read a split, one shard after another.

    Args:
        store: holds the data set.
        index: of it.
        name: of the split.
        advance: is called with the number of images that were read.

    Raises:
        UserError: a shard is missing, damaged or not what the index describes.
        StoreUnavailable: the store does not answer.
    """
    digests: list[bytes] = []
    sources: list[str] = []
    parts, labels, origins = [], [], []
    for info in index.shards(name):
        rows = fetched_shard(store, info, index)
        images = np.asarray(rows["image"])
        digests += [hashlib.sha256(image.tobytes()).digest() for image in images]
        parts.append(describe(images))
        labels.append(rows["label"].astype(np.int64))
        origins.append(rows["origin"].astype(np.int64))
        sources += file_names(rows, info)
        advance(info.rows)
    return Split(
        name,
        tuple(digests),
        joined(parts),
        np.concatenate(labels),
        np.concatenate(origins),
        tuple(sources),
    )


def pixels(
    store: Store,
    index: Index,
    name: str,
    rows: Rows,
    change: Callable[[Images], Images],
    advance: Callable[[int], None],
) -> Images:
    """Some images of a split, uint8 (rows, height, width, 3) as `change` makes them.

    Only the shards that hold them are read.

    Args:
        rows: which ones, in ascending order.
        change: what is done to the images of a shard.
        advance: is called with the number of images that were read.
    """
    found = [change(np.zeros((0, *index.image_shape), np.uint8))]
    begins = index.offsets(name)
    shard_of = np.searchsorted(begins, rows, side="right") - 1
    for number in np.unique(shard_of):
        here = rows[shard_of == number] - begins[number]
        shard = fetched_shard(store, index.shards(name)[number], index)
        found.append(change(np.asarray(shard["image"][here])))
        advance(len(here))
    return np.concatenate(found)
