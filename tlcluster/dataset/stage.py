"""Images → shards in a folder, in several processes."""

import contextlib
import hashlib
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tlcluster.cinic10 import ORIGINS, SPLITS, origin_of
from tlcluster.dataset import shards
from tlcluster.dataset.arrange import Image, Source
from tlcluster.dataset.decode import Size, decode, quiet_pillow, shown_size
from tlcluster.dataset.names import shown
from tlcluster.dataset.shards import Index, ShardInfo
from tlcluster.errors import UserError
from tlcluster.meter import meter

DEFAULT_ROWS = 2048
"""Images of a shard, if they are of 32×32 pixels: 6 MB. Few enough for the first step of a
training to come soon, and enough for S3 to be read at full speed."""
MIN_ROWS = 16
MAX_SHARD_BYTES = 2**30
"""A process that decodes holds one shard in memory, and a reader several."""

_NAMED = 3
"""Bad images that an error names; it counts the others."""


@dataclass(frozen=True)
class Form:
    """What the shards of a source look like."""

    dataset: str
    """Name of the data set."""
    size: Size
    resize: bool
    """Whether images of other sizes are brought to `size`."""
    origins: bool
    """Whether file names tell origins, as in CINIC-10."""
    rows_per_shard: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.size[1], self.size[0], 3


def rows_for(size: Size) -> int:
    """Images of a shard if nobody says how many: about 6 MB, from 16 to 2,048 images."""
    return min(DEFAULT_ROWS, max(MIN_ROWS, DEFAULT_ROWS * 32 * 32 // (size[0] * size[1])))


class _Task(NamedTuple):
    """One shard to build. Everything a worker process needs."""

    source: Source
    """Without its lists of images."""
    form: Form
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


def stage(source: Source, form: Form, folder: Path, processes: int, show: bool) -> Index:
    """Build all shards in a folder.

    Raises:
        UserError: an image cannot be used, the disk is too small, or a process was killed.
    """
    longest = max(len(image.name.encode()) for images in source.images.values() for image in images)
    row_bytes = shards.row_dtype(longest, form.image_shape, len(source.classes)).itemsize
    if form.rows_per_shard * row_bytes > MAX_SHARD_BYTES:
        raise UserError(
            f"--rows-per-shard {form.rows_per_shard}: a shard of images of "
            f"{shown_size(form.size)} would have {form.rows_per_shard * row_bytes:,} bytes, at "
            f"most {MAX_SHARD_BYTES:,} are allowed; give at most {MAX_SHARD_BYTES // row_bytes:,}"
        )
    tasks = [
        _Task(source._replace(images={}), form, split, number, images, longest, folder)
        for split in SPLITS
        for number, images in enumerate(_dealt(source, split, form.rows_per_shard))
    ]
    total = sum(len(task.images) for task in tasks)
    needed, free = total * row_bytes, shutil.disk_usage(folder).free
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
    if failures := sorted(failure for shard in built for failure in shard.failures):
        raise _unusable(source.name, failures, total)
    return Index(
        format=shards.format_of(len(source.classes)),
        dataset=form.dataset,
        classes=source.classes,
        image_shape=form.image_shape,
        splits={
            split: tuple(
                shard.shard
                for task, shard in zip(tasks, built, strict=True)
                if task.split == split and shard.shard is not None
            )
            for split in SPLITS
        },
    )


def _unusable(source: str, failures: Sequence[tuple[str, str]], total: int) -> UserError:
    named = "; ".join(f"{shown(path)} {why}" for path, why in failures[:_NAMED])
    more = f"; and {len(failures) - _NAMED} more" if len(failures) > _NAMED else ""
    return UserError(
        f"{source}: {len(failures)} of {total:,} images cannot be used: {named}{more}; "
        "nothing was written, repair or remove them"
    )


def _dealt(source: Source, split: str, rows: int) -> Iterator[list[Image]]:
    """A split's images in the order of a hash of their names, in slices of `rows`.

    The order is as good as random, so that classes and origins are spread over all shards. It is
    the same on every machine and with every version, which no random generator promises.
    """

    def place(image: Image) -> bytes:
        path = f"{split}/{source.classes[image.label]}/{image.name}"
        return hashlib.sha256(path.encode()).digest()

    images = sorted(source.images[split], key=place)
    for start in range(0, len(images), rows):
        yield images[start : start + rows]


def _map(build: Callable[[_Task], _Built], tasks: list[_Task], processes: int) -> Iterator[_Built]:
    if processes == 1:
        yield from map(build, tasks)
        return
    # A fork would copy the locks of threads that it does not copy.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent)
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
    """Start worker processes inside the block: they ignore Ctrl-C, and this process ends them.

    They inherit the signal mask, so there is no moment in which Ctrl-C ends one with a traceback.
    The handler covers signals that another thread of this process receives: a worker must not be
    left half started.
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


def _end_with_parent() -> None:
    """End this worker process with its parent, even if the parent is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()


def _build(task: _Task) -> _Built:
    """Decode the images of one shard and write it into the staging folder."""
    source, form = task.source, task.form
    dtype = shards.row_dtype(task.source_bytes, form.image_shape, len(source.classes))
    rows = np.empty(len(task.images), dtype)
    failures = []
    with quiet_pillow():
        for pixels, image in zip(rows["image"], task.images, strict=True):
            try:
                pixels[:] = decode(source.read(image), form.size, resize=form.resize)
            except OSError as error:
                failures.append((image.path, f"cannot be read ({error.strerror})"))
            except ValueError as error:
                failures.append((image.path, str(error)))
    if failures:
        return _Built(None, len(rows), failures)
    rows["label"] = [image.label for image in task.images]
    rows["origin"] = [
        ORIGINS.index(origin_of(image.name) if form.origins else "other") for image in task.images
    ]
    rows["source"] = [image.name.encode() for image in task.images]
    data = shards.encode(rows)
    digest = hashlib.sha256(data).hexdigest()
    # The content's hash is part of the key, so no two data sets use one key for different bytes.
    key = f"{task.split}/{task.number:05d}-{digest[:16]}.npy"
    path = task.staging / key
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return _Built(ShardInfo(key=key, rows=len(rows), bytes=len(data), sha256=digest), len(rows), [])
