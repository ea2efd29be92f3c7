"""Put a data set into a store: python jobs/ingest.py --source PATH|URL --store URL."""

from collections.abc import Sequence
from pathlib import Path

from tlcluster import cli
from tlcluster.cinic10 import ARCHIVE_URL
from tlcluster.dataset.ingest import ingest
from tlcluster.settings import IngestSettings
from tlcluster.storage.cache import NodeCache
from tlcluster.storage.open import open_store

ABOUT = (
    "Decode a data set of images once and write it into a store as shards with an index. After an "
    "interruption, run it again: it continues. A data set is split/class/image: folders train, "
    "valid (or val, validation) and test, each with one folder per class, with PNG or JPEG files. "
    "Photographs are turned upright as their EXIF data says. "
    f"The official archive of CINIC-10 is {ARCHIVE_URL}"
)


def main(argv: Sequence[str]) -> int:
    settings = cli.parse(IngestSettings, "ingest.py", ABOUT, argv)
    cache = NodeCache(Path(settings.cache) if settings.cache else None)
    store = open_store(settings.store, cache, create=True)
    outcome = ingest(
        settings.source,
        store,
        rows_per_shard=settings.rows_per_shard,
        image_size=settings.size,
        valid_fraction=settings.valid_fraction,
        name=settings.name,
        processes=settings.processes,
        cache=cache.folder,
        show=True,
    )
    shards = outcome.shards
    if not outcome.written:
        print("the store already holds these images; nothing changed")
    elif outcome.written < len(shards):
        print(f"{len(shards) - outcome.written} of the shards were there already and were kept")
    index = outcome.index
    height, width, _ = index.image_shape
    print(f"{index.dataset}: {len(index.classes):,} classes, images of {width}×{height} pixels")
    print(
        f"{outcome.images:,} images in {len(shards):,} shards, "
        f"{sum(shard.bytes for shard in shards):,} bytes, {outcome.seconds:.1f} s, "
        f"{outcome.images / outcome.seconds:,.0f} images/s: {store.url}"
    )
    return cli.OK


if __name__ == "__main__":
    cli.command(main)
