"""Single images of a split, by their number, with their pixels."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tlcluster.dataset.shards import Index, fetched_shard
from tlcluster.storage.protocol import Store


def images_of(
    store: Store, index: Index, split: str, numbers: Sequence[int]
) -> Iterator[tuple[int, str, npt.NDArray[np.uint8]]]:
    """Images of a split: number, name, and pixels uint8 (height, width, 3).

    A shard is fetched when its first image is asked for; only those with such images are.

    Args:
        store: holds the data set.
        index: of the store.
        split: of the images.
        numbers: in the order of the index, from 0 on; others than the split has are left out.

    Raises:
        CorruptObject, ObjectMissing, UserError: a shard is damaged, missing, or no shard.
        StoreUnavailable: the store does not answer.
    """
    offsets = index.offsets(split)
    wanted = np.unique(np.array([n for n in numbers if 0 <= n < offsets[-1]], np.int64))
    shards = np.searchsorted(offsets, wanted, side="right") - 1
    for shard in np.unique(shards):
        rows = fetched_shard(store, index.shards(split)[shard], index)
        for number in wanted[shards == shard]:
            row = rows[number - offsets[shard]]
            # A copy: the file of the shard closes with the last view of it.
            yield int(number), row["source"].decode("utf-8", "replace"), row["image"].copy()
