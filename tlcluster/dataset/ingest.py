"""Folder or archive → shards and index in a store.

What is written depends on the images and the flags only, not on the machine, the number of
processes, the kind of archive or the order of its files. Everything is decoded and checked before
the first object is written, and the index is written last.
"""

import functools
import os
import re
import sys
import threading
import time
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tlcluster import cinic10
from tlcluster.dataset.archive import stem_of
from tlcluster.dataset.arrange import Image, Source
from tlcluster.dataset.decode import Size, quiet_pillow, shown_size, size_of
from tlcluster.dataset.download import public
from tlcluster.dataset.names import shown
from tlcluster.dataset.publish import publish, refuse_other_size, stored_index
from tlcluster.dataset.shards import Index, ShardInfo
from tlcluster.dataset.sources import open_source
from tlcluster.dataset.stage import Form, rows_for, stage
from tlcluster.errors import UserError, from_os_error
from tlcluster.machine import local_cpus
from tlcluster.paths import expanded
from tlcluster.settings import MAX_SIDE, MIN_SIDE
from tlcluster.storage.cache import default_folder
from tlcluster.storage.patient import patient, told
from tlcluster.storage.protocol import Store
from tlcluster.storage.scratch import scratch_folder
from tlcluster.terminal import one_line

_SURVEYED = 256
"""Images whose size is looked at before all are decoded, evenly spread."""
_SIZES_SHOWN = 5

_WAY_OUT = "give --image-size 64 or --image-size WIDTHxHEIGHT to resize all of them"


@dataclass(frozen=True)
class Outcome:
    """What an ingest did."""

    index: Index
    written: int
    """Shards that were not there before."""
    seconds: float

    @property
    def images(self) -> int:
        return sum(self.index.rows(split) for split in self.index.splits)

    @property
    def shards(self) -> list[ShardInfo]:
        return [shard for infos in self.index.splits.values() for shard in infos]


def ingest(
    source: str,
    store: Store,
    *,
    rows_per_shard: int | None = None,
    image_size: Size | None = None,
    valid_fraction: float | None = None,
    name: str | None = None,
    processes: int | None = None,
    cache: Path | None = None,
    show: bool = False,
    storage_wait: float = 0.0,
) -> Outcome:
    """Write a source into a store, or continue an interrupted call. A second call changes nothing.

    Args:
        source: folder, archive or https address; see `tlcluster.dataset.sources`.
        store: where to; a store holds one data set.
        rows_per_shard: images per shard; the last of a split may have fewer. By default, as
            many as take about 6 MB.
        image_size: width and height in pixels to which all images are resized; by default all
            must have one size.
        valid_fraction: part of `train` that becomes the validation split, for sources without one.
        name: name of the data set; by default that of the folder or archive, and `cinic-10` for
            CINIC-10.
        processes: number of processes that decode; by default one per CPU of this process. With
            1, this process decodes.
        cache: folder for downloads and for shards on their way; by default `default_folder()`.
        show: show progress on standard error, and when storage is away.
        storage_wait: seconds to wait for a store that does not answer.

    Raises:
        UserError: the source or an image cannot be used, the store holds
            another data set, or a disk is full. Nothing was written then,
            unless the store failed in the middle: the same call continues.
        StoreUnavailable: storage or a network file system does not answer for now.
    """
    started = time.monotonic()
    cache = cache or default_folder()
    hurry = threading.Event()
    say = functools.partial(print, file=sys.stderr, flush=True) if show else _silent
    store = patient(
        store,
        storage_wait,
        on_wait=told(lambda line: say(one_line(line))),
        should_stop=hurry.is_set,
    )
    _keep_apart(source, store)
    there = stored_index(store)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with scratch_folder("ingest", cache) as folder:
            opened = open_source(
                source, folder, cache / "downloads", show, valid_fraction=valid_fraction
            )
            if there is not None:
                refuse_other_size(store, there, opened)
            size = image_size or _common_size(opened)
            published = cinic10.is_published(
                opened.classes,
                size,
                (image.name for images in opened.images.values() for image in images),
            )
            study = published and valid_fraction is None and image_size is None
            form = Form(
                dataset=_dataset_name(name, source, study, size),
                size=size,
                resize=image_size is not None,
                origins=study,
                rows_per_shard=rows_per_shard or rows_for(size),
            )
            index = stage(opened, form, folder, processes or local_cpus(), show)
            written = publish(store, there, index, folder, show, hurry.set)
    except OSError as error:
        raise from_os_error(
            error,
            cache,
            "name a folder that can be written with --cache",
            if_full="free some space there or name another folder with --cache",
        ) from None
    return Outcome(index, written, time.monotonic() - started)


def _silent(_: str) -> None: ...


def _keep_apart(source: str, store: Store) -> None:
    """Refuse a store inside its own source: it would be part of the source the next time."""
    if "://" in store.url + source:
        return
    # Unlike Path.resolve, realpath has no error for a link that leads to itself.
    inside, outside = (Path(os.path.realpath(path)) for path in (store.url, expanded(source)))
    if inside.is_relative_to(outside):
        raise UserError(
            f"--store {store.url}: lies in the source {source}; name a place outside of it"
        )


def _common_size(source: Source) -> Size:
    """The size of all images, as far as a sample of them shows.

    Raises:
        UserError: they differ, or are too small or too large to be taken as they are.
    """
    images = [image for split in source.images.values() for image in split]
    sizes: Counter[Size] = Counter()
    example: dict[Size, str] = {}
    with quiet_pillow():
        for image in images[:: max(1, len(images) // _SURVEYED)]:
            if size := _size_or_none(source, image):
                sizes[size] += 1
                example.setdefault(size, image.path)
        if not sizes:  # decoding will say what is wrong with them
            return next(filter(None, (_size_or_none(source, i) for i in images)), (32, 32))
    if len(sizes) > 1:
        seen = sizes.most_common()
        listed = ", ".join(f"{shown_size(size)} ({count:,})" for size, count in seen[:_SIZES_SHOWN])
        more = f" and {len(seen) - _SIZES_SHOWN} more sizes" * (len(seen) > _SIZES_SHOWN)
        raise UserError(
            f"{source.name}: images differ in size: {listed}{more}, for example "
            f"{shown(example[seen[-1][0]])} is {shown_size(seen[-1][0])}; {_WAY_OUT}"
        )
    (size,) = sizes
    if min(size) < MIN_SIDE or max(size) > MAX_SIDE:
        raise UserError(
            f"{source.name}: the images are {shown_size(size)}; a side has {MIN_SIDE} to "
            f"{MAX_SIDE:,} pixels: {_WAY_OUT}"
        )
    return size


def _size_or_none(source: Source, image: Image) -> Size | None:
    try:
        return size_of(source.read(image))
    except (OSError, ValueError):
        return None


def _dataset_name(name: str | None, source: str, study: bool, size: Size) -> str:
    if study:
        return name or cinic10.NAME
    if name is None:
        last = public(source) if "://" in source else os.path.realpath(expanded(source))
        derived = _sanitised(stem_of(last))
        # An edited copy of CINIC-10 is most likely in a folder of this name.
        return f"{derived}-{size[0]}x{size[1]}" if derived.lower() == cinic10.NAME else derived
    if name.lower() == cinic10.NAME:
        raise UserError(
            f"--name {name}: this is not {cinic10.NAME} as published (its ten classes, its file "
            "names, 32×32 pixels, its own splits); give another name"
        )
    return name


def _sanitised(name: str) -> str:
    """A name in ASCII: without accents, and with a dash for each run of other characters."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-.")[:100] or "dataset"
