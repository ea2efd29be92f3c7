"""CINIC-10 folder or archive → shards and index in a store.

What is written depends on the images and on the rows per shard only: not on
the machine, the number of processes, the kind of archive or the order of its
files. Everything is decoded and checked before the first object is written,
and the index is written last.
"""

import contextlib
import errno
import hashlib
import io
import multiprocessing
import os
import shutil
import signal
import struct
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import PIL.Image

from tlcluster import cinic10
from tlcluster.cinic10 import CLASSES, IMAGE_SHAPE, ORIGINS, SPLITS, origin_of
from tlcluster.dataset import shards
from tlcluster.dataset.shards import INDEX_KEY, Index, ShardInfo
from tlcluster.dataset.sources import MAX_IMAGE_BYTES, Image, Source, open_source
from tlcluster.errors import UserError
from tlcluster.meter import meter
from tlcluster.paths import expanded
from tlcluster.storage.cache import default_folder
from tlcluster.storage.protocol import ObjectMissing, Store
from tlcluster.storage.scratch import scratch_folder

_UPLOADS = 8
_NAMED = 3
"""Bad images that an error names; it counts the others."""


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


class _Task(NamedTuple):
    """One shard to be built. Everything a worker process needs."""

    source: Source
    """Without its lists of images."""
    split: str
    number: int
    images: list[Image]
    source_bytes: int
    staging: Path


class _Built(NamedTuple):
    shard: ShardInfo | None
    rows: int
    failures: list[tuple[str, str]]
    """Path and reason of every image that cannot be used; there is no shard then."""


def ingest(
    source: str,
    store: Store,
    *,
    rows_per_shard: int,
    processes: int | None = None,
    cache: Path | None = None,
    show: bool = False,
) -> Outcome:
    """Write a source into a store, or go on with it; the second time, nothing changes.

    Args:
        source: folder, archive or https address; see `tlcluster.dataset.sources`.
        store: where to; one data set a store.
        rows_per_shard: images of a shard; the last of a split may have fewer.
        processes: that decode; by default one for each CPU of this process. With 1, this process
            decodes.
        cache: folder for downloads and for shards on their way; by default `default_folder()`.
        show: show progress on standard error.

    Raises:
        UserError: the source or an image cannot be used, the store holds
            another data set, or a disk is full. Nothing was written then,
            unless the store failed in the middle: the same call goes on.
    """
    started = time.monotonic()
    cache = cache or default_folder()
    _keep_apart(source, store)
    there = _stored_index(store)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with scratch_folder("ingest", cache) as folder:
            opened = open_source(source, folder, cache / "downloads", show)
            if there is not None:
                _same_size(store, there, opened)
            index = _stage(opened, folder, rows_per_shard, processes or _cpus(), show)
            written = _publish(store, there, index, folder, show)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise UserError(
            f"{cache}: {'the disk is full' if full else os.strerror(error.errno or 0).lower()}; "
            "free some space there or name another folder with --cache"
        ) from None
    return Outcome(index, written, time.monotonic() - started)


def _cpus() -> int:
    # What Slurm and taskset leave to this process; macOS does not know.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _keep_apart(source: str, store: Store) -> None:
    """A store in its own source would be part of it the next time."""
    inside, outside = Path(store.url).resolve(), expanded(source).resolve()
    if "://" not in store.url + source and inside.is_relative_to(outside):
        raise UserError(
            f"--store {store.url}: lies in the source {source}; name a place outside of it"
        )


def _stored_index(store: Store) -> Index | None:
    try:
        return Index.from_json(store.get(INDEX_KEY), f"{INDEX_KEY} of {store.url}")
    except ObjectMissing:
        return None


def _same_size(store: Store, there: Index, source: Source) -> None:
    """Tell another data set from this one before anything is decoded, where numbers can."""
    counts = {split: len(source.images[split]) for split in SPLITS}
    if {split: there.rows(split) for split in there.splits} != counts:
        raise _other(store, there, f"{sum(counts.values()):,} images")


def _other(store: Store, there: Index, here: str) -> UserError:
    images = sum(there.rows(split) for split in there.splits)
    count = sum(len(infos) for infos in there.splits.values())
    return UserError(
        f"{store.url} holds another data set, {images:,} images in {count:,} shards, and this "
        f"is one of {here}; name an empty place with --store, or ingest the same images with the "
        "same --rows-per-shard"
    )


def _stage(source: Source, folder: Path, rows_per_shard: int, processes: int, show: bool) -> Index:
    """Build all shards in a folder; nothing is returned unless every image was good."""
    longest = max(
        len(os.fsencode(image.name)) for images in source.images.values() for image in images
    )
    tasks = [
        _Task(source._replace(images={}), split, number, images, longest, folder)
        for split in SPLITS
        for number, images in enumerate(_dealt(split, source.images[split], rows_per_shard))
    ]
    total = sum(len(task.images) for task in tasks)
    needed = total * shards.row_dtype(longest, IMAGE_SHAPE).itemsize
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder.parent}: {total:,} images take {needed:,} bytes until they are in the store "
            f"and {free:,} are free; free some space or name another folder with --cache"
        )
    built = []
    with meter("decoding", total, "images", show) as advance:
        for shard in _map(_build, tasks, min(processes, len(tasks))):
            built.append(shard)
            advance(shard.rows)
    failures = sorted(failure for shard in built for failure in shard.failures)
    if failures:
        named = "; ".join(f"{path!r} {why}" for path, why in failures[:_NAMED])
        more = f"; and {len(failures) - _NAMED} more" if len(failures) > _NAMED else ""
        raise UserError(
            f"{source.name}: {len(failures)} of {total:,} images cannot be used: {named}{more}; "
            "nothing was written, repair or remove them"
        )
    return Index(
        dataset=cinic10.NAME,
        classes=CLASSES,
        image_shape=IMAGE_SHAPE,
        splits={
            split: tuple(
                shard.shard
                for task, shard in zip(tasks, built, strict=True)
                if task.split == split and shard.shard is not None
            )
            for split in SPLITS
        },
    )


def _dealt(split: str, images: list[Image], rows: int) -> Iterator[list[Image]]:
    """A split's images in the order of a hash of their names, in stretches of `rows`.

    As good as random, so classes and origins are spread over all shards, and
    the same for ever on every machine, which no random generator promises.
    """

    def place(image: Image) -> bytes:
        return hashlib.sha256(_path(split, image).encode()).digest()

    images = sorted(images, key=place)
    for start in range(0, len(images), rows):
        yield images[start : start + rows]


def _path(split: str, image: Image) -> str:
    return f"{split}/{CLASSES[image.label]}/{image.name}"


def _map(build: Callable[[_Task], _Built], tasks: list[_Task], processes: int) -> Iterator[_Built]:
    if processes == 1:
        yield from map(build, tasks)
        return
    # A fork would copy the locks of threads that it does not copy.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin_worker)
    try:
        with _ctrl_c_later():
            results = pool.map(build, tasks)
        yield from results
    except BrokenProcessPool:
        raise UserError(
            "a process that decoded images was killed, most likely because memory ran out; "
            f"give fewer than {processes} --processes or a smaller --rows-per-shard"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Start worker processes in here: Ctrl-C is for this one, which ends them.

    They inherit the mask, so there is no moment in which they would die of it with a
    traceback. The handler is for the signal that another thread of this process takes: half a
    worker started is no better.
    """
    asked = []
    before = signal.signal(signal.SIGINT, lambda *_: asked.append(True))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt


def _begin_worker() -> None:
    """End with the parent even if it is killed."""
    # Of palettes with transparency, an image at a time.
    warnings.filterwarnings("ignore", module="PIL")
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()


def _build(task: _Task) -> _Built:
    """Decode the images of one shard and write it into the staging folder, in a worker process."""
    rows = np.empty(len(task.images), shards.row_dtype(task.source_bytes, IMAGE_SHAPE))
    failures = []
    for pixels, image in zip(rows["image"], task.images, strict=True):
        try:
            pixels[:] = decode(task.source.read(task.split, image))
        except OSError as error:
            failures.append((_path(task.split, image), f"cannot be read ({error.strerror})"))
        except ValueError as error:
            failures.append((_path(task.split, image), str(error)))
    if failures:
        return _Built(None, len(rows), failures)
    rows["label"] = [image.label for image in task.images]
    rows["origin"] = [ORIGINS.index(origin_of(image.name)) for image in task.images]
    rows["source"] = [image.name.encode() for image in task.images]
    data = shards.encode(rows)
    digest = hashlib.sha256(data).hexdigest()
    # With the content in the key, no two data sets ever want one key for different bytes.
    key = f"{task.split}/{task.number:05d}-{digest[:16]}.npy"
    path = task.staging / key
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return _Built(ShardInfo(key=key, rows=len(rows), bytes=len(data), sha256=digest), len(rows), [])


def decode(data: bytes) -> npt.NDArray[np.uint8]:
    """PNG or JPEG of 32×32 pixels, in any colours → RGB, uint8 (32, 32, 3).

    CINIC-10 has grey images and ones with a palette among the coloured ones;
    they become RGB the way Keras reads them, an alpha channel is dropped.

    Raises:
        ValueError: what is wrong with it.
    """
    if len(data) > MAX_IMAGE_BYTES:
        raise ValueError(f"has more than {MAX_IMAGE_BYTES} bytes")
    try:
        with PIL.Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.size != (IMAGE_SHAPE[1], IMAGE_SHAPE[0]):
                width, height = image.size
                raise ValueError(f"is {width}×{height}, not {IMAGE_SHAPE[1]}×{IMAGE_SHAPE[0]}")
            if image.mode in ("I", "I;16", "F"):
                raise ValueError("has more than 8 bits a channel")
            image.load()
            pixels = (image if image.mode == "RGB" else image.convert("RGB")).tobytes()
    except PIL.UnidentifiedImageError:
        raise ValueError("is no PNG or JPEG") from None
    except PIL.Image.DecompressionBombError:
        raise ValueError("is far too large") from None
    except (OSError, SyntaxError, EOFError, struct.error, zlib.error) as error:
        raise ValueError(f"is damaged ({error})") from None
    return np.frombuffer(pixels, np.uint8).reshape(IMAGE_SHAPE)


def _publish(store: Store, there: Index | None, index: Index, folder: Path, show: bool) -> int:
    """Upload the shards that the store lacks, then the index. Returns how many those were."""
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
            for size in pool.map(upload, missing):
                advance(size)
        finally:
            pool.shutdown(cancel_futures=True)
    if not store.put_if_absent(INDEX_KEY, index.to_json()):
        winner = _stored_index(store)
        if winner is not None and winner != index:
            raise _other(store, winner, here)
    return len(missing)
