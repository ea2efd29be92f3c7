"""The names and labels of a split, without its images' pixels."""

import numpy as np
import numpy.typing as npt

from tlcluster.dataset.shards import Index, fetched_shard
from tlcluster.storage.protocol import Store


def sources_and_labels(
    store: Store, index: Index, split: str
) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.int64]]:
    """Names (n,) and labels (n,) of a split, in index order."""
    sources, labels = [], []
    for info in index.shards(split):
        rows = fetched_shard(store, info, index)
        sources.append(np.char.decode(rows["source"], "utf-8"))
        labels.append(rows["label"].astype(np.int64))
    return np.concatenate(sources), np.concatenate(labels)
