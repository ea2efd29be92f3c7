"""The sample in the package: 100 real CINIC-10 images per class and split."""

import importlib.resources
import tempfile
from pathlib import Path

from tlcluster.dataset.ingest import ingest
from tlcluster.storage.protocol import Store

SAMPLE_ROWS_PER_SHARD = 250
"""The sample has 1,000 images per split. Several shards make it behave like a large data set."""


def sample() -> str:
    """Path of the archive in the package."""
    files = importlib.resources.files("tlcluster.dataset") / "sample_files"
    return str(files / "cinic10-sample.tar.xz")


def fill_with_sample(store: Store) -> None:
    """Ingest the sample into a store. It needs no home, only a temporary folder."""
    ingest(
        sample(),
        store,
        rows_per_shard=SAMPLE_ROWS_PER_SHARD,
        processes=1,
        cache=Path(tempfile.gettempdir()),
    )
