"""Iterate over the order of one epoch of a large data set: a program for the part `memory`."""

import argparse

from tlcluster.bench.clock import answer
from tlcluster.bench.datasets import ROWS_PER_SHARD
from tlcluster.dataset.order import training_batches
from tlcluster.dataset.shards import Index, ShardInfo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=int, help="images of the train split")
    given = parser.parse_args()
    # Through JSON, as a worker receives it.
    index = Index.from_json(generated(given.rows).to_json())
    batches = training_batches(
        index.shard_rows("train"), seed=524, epoch=1, global_batch=128, rank=0, world_size=1
    )
    answer(rows=sum(len(batch.row) for batch in batches))


def generated(rows: int) -> Index:
    """An index with this number of rows, in shards of the usual size."""
    sizes = [ROWS_PER_SHARD] * (rows // ROWS_PER_SHARD)
    if rest := rows % ROWS_PER_SHARD:
        sizes.append(rest)
    shards = tuple(
        ShardInfo(key=f"train/{n:06d}.npy", rows=size, bytes=3200 * size, sha256=f"{n:064x}")
        for n, size in enumerate(sizes)
    )
    return Index(
        dataset="generated", classes=("one",), image_shape=(32, 32, 3), splits={"train": shards}
    )


if __name__ == "__main__":
    main()
