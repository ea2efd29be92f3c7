"""The sample that the package ships: 100 real CINIC-10 images a class and split."""

import importlib.resources

from tlcluster.dataset.ingest import ingest
from tlcluster.storage.protocol import Store

SAMPLE_ROWS_PER_SHARD = 250
"""The sample has 1,000 images a split: several shards, so that it shows what a real one does."""


def sample() -> str:
    """The path of the archive that the package ships: 100 real images a class and split."""
    files = importlib.resources.files("tlcluster.dataset") / "sample_files"
    return str(files / "cinic10-sample.tar.xz")


def fill_with_sample(store: Store) -> None:
    """Ingest the sample that the package ships: 100 real CINIC-10 images a class and split."""
    ingest(sample(), store, rows_per_shard=SAMPLE_ROWS_PER_SHARD, processes=1)
