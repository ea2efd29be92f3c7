"""Features of a frozen base, computed once and shared by all experiments that need them.

A frozen base never changes, so neither does its output for an image or for one view of an image.
The same holds for the frozen lower part of a base; see `tlcluster.training.lower_part`. Features
are stored in the output folder, beside the runs, in shards like those of the images:

    features/<hash>/<split>/<view>/<shard>.json          size and sha256 of
    features/<hash>/<split>/<view>/<shard>-<sha256>.npy  float32 (rows, features)

The hash covers everything that they depend on. The first worker that needs a shard claims it,
computes it and stores it, the small file last; the others wait for it and read it. A claim whose
owner died is taken over: at once by a later attempt of the same training, by others if it has not
changed for a while. So workers can start in any order, and only needed shards are computed.

Others may be able to write to the output folder. Features are therefore checked when they are read,
and computed again if they are not what this module writes.
"""

import hashlib
import io
import threading
import time
import tokenize
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras
from pydantic import Field

from tlcluster.dataset.shards import Index, fetched_shard
from tlcluster.dataset.stream import Shard
from tlcluster.errors import UserError
from tlcluster.records import Record
from tlcluster.storage.protocol import CorruptObject, ObjectMissing, ObjectTooLarge, Store
from tlcluster.training import augment
from tlcluster.training.collective import local
from tlcluster.training.data import image_spec
from tlcluster.training.feature_key import MIRRORED, PLAIN, FeatureKey

CLAIM_SECONDS = 20.0
"""Seconds without a change after which the owner of a claim is taken for dead.

The owner writes its claim again after every batch, several times a second on a core of its own.
Each waiting worker measures the time itself, so the nodes' clocks do not matter. If the owner is
only slow, the shard is computed twice."""

POLL_SECONDS = 0.1

TRIES = 3
"""Times that one worker computes a shard before it gives up reading its own result."""

_MOST_BYTES = 2**16
"""Of a claim, and of the small file beside features."""

_UNREADABLE = (
    *(EOFError, MemoryError, OverflowError, RecursionError, SyntaxError, TypeError, ValueError),
    tokenize.TokenError,
)
"""What `np.load` raises for a file that is no array: it parses the header as Python source."""


class FeatureObject(Record):
    """The small file beside a shard of features."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int


class Claim(Record):
    """The file of a claim: the worker that computes the shard, and its progress."""

    training: str
    """The folder of the training, which names it; only one of a name runs at a time."""
    attempt: int
    """Attempt of that training. When one begins, the workers of earlier ones are gone."""
    images: int = 0
    """Images computed so far."""

    def left_by(self, other: bytes | None) -> bool:
        """Whether the content of a claim is from an earlier attempt of the same training."""
        try:
            claim = Claim.model_validate_json(other or b"")
        except ValueError:
            return False
        return claim.training == self.training and claim.attempt < self.attempt


class FeatureStore:
    """Features by split, view and shard: read, or computed here. Safe for many threads."""

    def __init__(
        self,
        *,
        images: Store,
        index: Index,
        features: Store,
        key: FeatureKey,
        base: keras.Model,
        strategy: tf.distribute.Strategy,
        claim: Claim,
        batch: int,
    ) -> None:
        """
        Args:
            images: the store of the images.
            index: its index.
            features: the store of the features.
            key: what the features depend on.
            base: images → features; see `tlcluster.training.model.Models`.
            strategy: that the base was built under.
            claim: content of this worker's claims.
            batch: images in a forward pass. It depends on the key only, so that features do not
                depend on the worker.
        """
        self._images, self._index, self._features, self._key = images, index, features, key
        self._claim, self._batch = claim, batch
        self._features_per_row = int(base.output_shape[1])
        self._compute = _forward(base, strategy, index.image_shape, key)
        # One shard at a time: more would only share the same cores.
        self._busy = threading.Lock()
        self._seconds: dict[str, float] = {}
        """Of the groups that were read."""

    @property
    def seconds(self) -> Mapping[str, float | None]:
        """Group of features → seconds in which this worker has computed some of them; None if it
        has read none of them. The groups and their order are the same for all workers."""
        shown = (
            ("train", PLAIN),
            ("train", 1),
            ("valid", PLAIN),
            ("test", PLAIN),
            ("test", MIRRORED),
        )
        groups = [self._key.group(split, view) for split, view in shown]
        return {group: self._seconds.get(group) for group in groups}

    def missing_bytes(self, views: Iterable[tuple[str, int]]) -> int:
        """Bytes of the features that are not stored yet.

        Args:
            views: splits and views of them.
        """
        rows = 0
        for split, view in views:
            place = self._key.place(split, view)
            there = {found.key for found in self._features.list(f"{place}/")}
            for number, info in enumerate(self._index.shards(split)):
                rows += 0 if f"{place}/{number:05d}.json" in there else info.rows
        return 4 * self._features_per_row * rows

    def load(self, split: str, view: int, number: int) -> Shard:
        """One shard of features, verified.

        Returns:
            float32 features (rows, features), mapped from a file, and the labels (rows,).

        Raises:
            CorruptObject, ObjectMissing: the shard of images is damaged or missing.
            UserError: features cannot be written or read back.
        """
        info = self._index.shards(split)[number]
        images = fetched_shard(self._images, info, self._index)
        place = f"{self._key.place(split, view)}/{number:05d}"
        claim = f"{place}.claim"
        seen, since = None, time.monotonic()
        tries = 0
        group = self._key.group(split, view)
        self._seconds.setdefault(group, 0.0)
        while True:
            features = self._found(place, info.rows)
            if features is not None:
                return Shard(features, np.array(images["label"]))
            if tries == TRIES:
                raise UserError(
                    f"{place} in {self._features.url}: features that were written there cannot be "
                    f"read back, {TRIES} times in a row; check that the base gives finite numbers "
                    "and that the file system works, or name another --output"
                )
            # Lock first: a claim must not age before its computation begins.
            with self._busy:
                if claimed := self._features.put_if_absent(claim, _content(self._claim)):
                    try:
                        # Another worker may have finished between our look and our claim.
                        if self._found(place, info.rows) is None:
                            began = time.monotonic()
                            self._write(place, split, view, number, images["image"])
                            self._seconds[group] += time.monotonic() - began
                    finally:
                        self._features.delete(claim)
            if claimed:
                tries += 1
                continue
            if self._claim.left_by(sign := self._read(claim)):
                self._features.delete(claim)
                continue
            if sign != seen:
                seen, since = sign, time.monotonic()
            elif time.monotonic() - since > CLAIM_SECONDS:
                self._features.delete(claim)
            time.sleep(POLL_SECONDS)

    def _read(self, key: str) -> bytes | None:
        try:
            return self._features.get(key, _MOST_BYTES)
        except (ObjectMissing, ObjectTooLarge):
            return None

    def _found(self, place: str, rows: int) -> np.ndarray | None:
        """The features, or None if they are missing or wrong; wrong ones are deleted."""
        try:
            known = FeatureObject.model_validate_json(
                self._features.get(f"{place}.json", _MOST_BYTES)
            )
        except ObjectMissing:
            return None
        except (ValueError, ObjectTooLarge):
            self._features.delete(f"{place}.json")
            return None
        key = f"{place}-{known.sha256}.npy"
        try:
            path = self._features.fetch(key, sha256=known.sha256, size=known.bytes)
            # A hash only shows that nothing was damaged: anyone can compute it.
            features = checked(path, (rows, self._features_per_row))
        except (CorruptObject, ObjectMissing, FileNotFoundError):
            features = None
        if features is None:
            self._features.delete(f"{place}.json")
            self._features.delete(key)
        return features

    def _write(self, place: str, split: str, view: int, number: int, images: np.ndarray) -> None:
        first = int(self._index.offsets(split)[number])
        samples = np.arange(first, first + len(images), dtype=np.int64)
        # Straight into the file's content: features of a shard may take 128 MB.
        buffer = io.BytesIO()
        shape = len(images), self._features_per_row
        kind = np.lib.format.dtype_to_descr(np.dtype(np.float32))
        header = {"descr": kind, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(buffer, header)
        if view == MIRRORED:
            view, images = PLAIN, images[:, :, ::-1]
        for start in range(0, len(images), self._batch):
            part = self._compute(
                tf.constant(images[start : start + self._batch]),
                tf.constant(samples[start : start + self._batch]),
                tf.constant(view, tf.int64),
            )
            buffer.write(part.numpy().tobytes())
            further = self._claim.model_copy(update={"images": start + len(part)})
            self._features.put(f"{place}.claim", _content(further))
        content = buffer.getvalue()
        sha256 = hashlib.sha256(content).hexdigest()
        # The name contains the hash, so two writers cannot mix: the first small file decides.
        self._features.put(f"{place}-{sha256}.npy", content)
        small = FeatureObject(sha256=sha256, bytes=len(content))
        self._features.put_if_absent(f"{place}.json", _content(small))


def checked(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """The array in a file, mapped, or None if it is no finite float32 array of this shape."""
    try:
        with path.open("rb") as file:
            # Other versions of the format may have headers of 4 GiB.
            if np.lib.format.read_magic(file) != (1, 0):
                return None
        features = np.load(path, mmap_mode="r", allow_pickle=False)
    except _UNREADABLE:
        return None
    right = features.dtype == np.float32 and features.shape == shape
    return features if right and np.isfinite(features).all() else None


def _content(record: Record) -> bytes:
    return record.model_dump_json().encode()


def _forward(
    base: keras.Model,
    strategy: tf.distribute.Strategy,
    image_shape: tuple[int, int, int],
    key: FeatureKey,
) -> Callable[..., tf.Tensor]:
    how = augment.AUGMENTATIONS[key.augmentation]

    # One graph for any number of images: graphs for certain numbers differ in the last digit.
    @tf.function(
        input_signature=[
            image_spec(image_shape),
            tf.TensorSpec((None,), tf.int64),
            tf.TensorSpec((), tf.int64),
        ]
    )
    def forward(images: tf.Tensor, samples: tf.Tensor, view: tf.Tensor) -> tf.Tensor:
        shown = tf.cond(
            view == PLAIN,
            lambda: tf.cast(images, tf.float32),
            lambda: augment.augment(images, how, seed=key.seed, view=view, samples=samples),
        )
        # In replica context: outside it, reading BatchNorm's moving statistics is a collective, and
        # the other workers compute other shards, or none.
        return local(strategy, strategy.run(partial(base, training=False), args=(shown,)))

    return forward
