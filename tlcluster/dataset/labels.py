"""The names and labels of a split, without its images' pixels."""

import numpy as np
import numpy.typing as npt

from tlcluster.dataset.shards import Index, ShardInfo, fetched_shard
from tlcluster.errors import UserError
from tlcluster.storage.protocol import Store


def file_names(rows: npt.NDArray[np.void], info: ShardInfo) -> list[str]:
    """The file names of a shard's rows.

    Raises:
        UserError: one of them is not UTF-8.
    """
    try:
        return [source.decode() for source in rows["source"].tolist()]
    except UnicodeDecodeError:
        raise UserError(
            f"shard {info.key} has a file name that is not UTF-8; ingest the images again into an "
            "empty place"
        ) from None


def sources_and_labels(
    store: Store, index: Index, split: str
) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.int64]]:
    """Names (n,) and labels (n,) of a split, in index order.

    Raises:
        UserError: a shard is missing, damaged or not what the index describes.
        StoreUnavailable: the store does not answer.
    """
    sources: list[str] = []
    labels = []
    for info in index.shards(split):
        rows = fetched_shard(store, info, index)
        sources += file_names(rows, info)
        labels.append(rows["label"].astype(np.int64))
    return np.array(sources, np.str_), np.concatenate(labels)
