"""Reads a split as training does: a program for the benchmark."""

import argparse
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tlcluster.bench.clock import time_epochs
from tlcluster.dataset.order import training_batches
from tlcluster.dataset.shards import fetched_shard, read_index
from tlcluster.dataset.stream import Batch, stream
from tlcluster.storage.cache import NodeCache
from tlcluster.storage.open import open_store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the node's cache")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--tf-data", action="store_true", help="give batches as tf.data does")
    parser.add_argument("--verify-only", action="store_true", help="give no batches")
    given = parser.parse_args()
    store = open_store(given.store, NodeCache(given.cache))
    index, _ = read_index(store)
    numbers = itertools.count(1)

    def batches() -> Iterator[Batch]:
        # A new stream for every epoch, so that every shard is verified in every epoch.
        rows = training_batches(
            index.shard_rows("train"),
            seed=524,
            epoch=next(numbers),
            global_batch=128,
            rank=0,
            world_size=1,
        )
        return stream(store, index, "train", rows)

    def verified() -> Iterable[tuple[Any, Any]]:
        for info in index.shards("train"):
            rows = fetched_shard(store, info, index)
            yield rows["image"], rows["label"]

    def epoch() -> Iterable[tuple[Any, Any]]:
        if given.verify_only:
            return verified()
        if not given.tf_data:
            return ((batch.inputs, batch.labels) for batch in batches())
        return ((inputs, labels) for inputs, labels, *_ in tensors)

    if given.tf_data:
        from tlcluster.training.data import dataset, image_spec  # noqa: PLC0415  needs TensorFlow
        from tlcluster.training.mixup import unmixed  # noqa: PLC0415

        # Made once, as in training; each epoch iterates over it again.
        tensors = dataset(
            lambda: ((1, 0, 1e-3, unmixed(len(batch.labels)), batch) for batch in batches()),
            image_spec(index.image_shape),
        )
    time_epochs(epoch, given.epochs)


if __name__ == "__main__":
    main()
