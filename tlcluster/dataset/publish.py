"""Shards in a folder → a store, which holds one data set."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tlcluster.dataset.arrange import Source
from tlcluster.dataset.shards import INDEX_KEY, Index, ShardInfo
from tlcluster.errors import UserError
from tlcluster.meter import meter
from tlcluster.storage.protocol import LARGEST_RECORD, ObjectMissing, Store

_UPLOADS = 8


def stored_index(store: Store) -> Index | None:
    """The index of a store, None if it has none."""
    try:
        return Index.from_json(store.get(INDEX_KEY, LARGEST_RECORD), f"{INDEX_KEY} of {store.url}")
    except ObjectMissing:
        return None


def refuse_other_size(store: Store, there: Index, source: Source) -> None:
    """Refuse a data set of another size than the stored one before anything is decoded."""
    counts = {split: len(images) for split, images in source.images.items()}
    if {split: there.rows(split) for split in there.splits} != counts:
        raise _other(store, there, f"{sum(counts.values()):,} images")


def publish(
    store: Store,
    there: Index | None,
    index: Index,
    folder: Path,
    show: bool,
    give_up: Callable[[], None],
) -> int:
    """Upload the shards that the store lacks, then the index.

    Args:
        store: where to.
        there: the index that the store has already.
        index: of the shards in `folder`.
        folder: holds the shards under their keys.
        show: show progress on standard error.
        give_up: ends the waiting of uploads for a store that does not answer.

    Returns:
        The number of shards that were uploaded.

    Raises:
        UserError: the store holds another data set.
    """
    infos = [shard for split in index.splits.values() for shard in split]
    here = f"{sum(shard.rows for shard in infos):,} in {len(infos):,}"
    if there is not None and there != index:
        raise _other(store, there, here)
    # Puts are atomic and a key holds its content's hash: an object of the right size is the right
    # one, left by an ingest that was interrupted.
    present = {item.key: item.size for split in index.splits for item in store.list(f"{split}/")}
    missing = [shard for shard in infos if present.get(shard.key) != shard.bytes]

    def upload(shard: ShardInfo) -> int:
        store.put(shard.key, folder / shard.key)
        return shard.bytes

    with (
        meter("writing", sum(shard.bytes for shard in missing), "bytes", show) as advance,
        ThreadPoolExecutor(_UPLOADS) as pool,
    ):
        try:
            # In any order: an error must not wait for an earlier shard, which waits for storage.
            for done in as_completed([pool.submit(upload, shard) for shard in missing]):
                advance(done.result())
        except BaseException:
            give_up()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    if not store.put_if_absent(INDEX_KEY, index.to_json()):
        winner = stored_index(store)
        if winner is not None and winner != index:
            raise _other(store, winner, here)
    return len(missing)


def _other(store: Store, there: Index, here: str) -> UserError:
    images = sum(there.rows(split) for split in there.splits)
    count = sum(len(infos) for infos in there.splits.values())
    return UserError(
        f"{store.url} holds another data set, {images:,} images in {count:,} shards, and this "
        f"is one of {here}; name an empty place with --store, or ingest the same images with the "
        "same flags (--rows-per-shard, --image-size, --valid-fraction, --name)"
    )
