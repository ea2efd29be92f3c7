"""Features of the frozen base, computed once and shared by every experiment that needs them.

Models 1 to 3 never change their base, so its output for an image never changes,
and neither does its output for one view of an image. Features lie in the output
folder, beside the runs, shard by shard as the images do:

    features/<hash>/<split>/<view>/<shard>.json          size and sha256 of
    features/<hash>/<split>/<view>/<shard>-<sha256>.npy  float32 (rows, 512)

The hash is that of all that they depend on. Whoever comes first to a shard
claims it, computes it and puts it there, the small file last; the others wait
for it and read it. A claim whose owner died is taken over: at once by a later
attempt of the same training, by others when it has not changed for a while. So
nobody has to be started before anybody else, and nothing is computed that no
one has come to.
"""

import hashlib
import io
import threading
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras as keras
from pydantic import Field

from tlcluster.dataset.shards import Index, fetched_shard
from tlcluster.dataset.stream import Shard
from tlcluster.errors import UserError
from tlcluster.experiments import BASE_FEATURES
from tlcluster.records import Record
from tlcluster.storage.protocol import CorruptObject, ObjectMissing, Store
from tlcluster.training import augment
from tlcluster.training.data import image_spec
from tlcluster.training.feature_key import PLAIN, FeatureKey

BATCH = 256
"""Images a forward pass takes; fixed, so that a shard's features do not depend on who computes."""

CLAIM_SECONDS = 20.0
"""A claim that has not changed for so long is a dead worker's: its owner writes it anew after every
batch, of which there are several a second on a core of its own. Each waiter counts for itself, so
that the nodes' clocks do not matter. Where the owner is only slow, the shard is computed twice."""

POLL_SECONDS = 0.1

TRIES = 3
"""Computations of one shard by one worker before it gives up reading back what it wrote."""


class FeatureObject(Record):
    """The small file beside a shard of features."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int


class Claim(Record):
    """The file of a claim: who computes the shard, and how far that has come."""

    training: str
    """Names the run and the experiment; no two of a name are under way at once."""
    attempt: int
    """Of that training. When one begins, the workers of those before it are gone."""
    images: int = 0

    def left_by(self, other: bytes | None) -> bool:
        """Whether a claim's content is of an earlier attempt of this one's training."""
        try:
            claim = Claim.model_validate_json(other or b"")
        except ValueError:
            return False
        return claim.training == self.training and claim.attempt < self.attempt


class FeatureStore:
    """Features by split, view and shard: found, or computed here. Safe for many threads."""

    def __init__(
        self,
        *,
        images: Store,
        index: Index,
        features: Store,
        key: FeatureKey,
        base: keras.Model,
        claim: Claim,
    ) -> None:
        """
        Args:
            images: where the shards are.
            index: what it holds.
            features: where features are kept.
            key: what they depend on.
            base: images → features; see `tlcluster.training.model.Models`.
            claim: what this worker's claims say of it.
        """
        self._images, self._index, self._features, self._key = images, index, features, key
        self._claim = claim
        self._compute = _forward(base, key.seed, index.image_shape)
        # One shard at a time: more would only share the same cores.
        self._busy = threading.Lock()

    def load(self, split: str, view: int, number: int) -> Shard:
        """One shard of features, verified.

        Returns:
            float32 features (rows, BASE_FEATURES), mapped from a file, and uint8 labels (rows,).

        Raises:
            CorruptObject, ObjectMissing: the shard of images is damaged or missing.
            UserError: features cannot be written, or not be read back.
        """
        info = self._index.shards(split)[number]
        images = fetched_shard(self._images, info, self._index)
        place = f"{self._key.place(split, view)}/{number:05d}"
        claim = f"{place}.claim"
        seen, since = None, time.monotonic()
        tries = 0
        while True:
            features = self._found(place, info.rows)
            if features is not None:
                return Shard(features, np.array(images["label"]))
            if tries == TRIES:
                raise UserError(
                    f"{place} in {self._features.url}: what was written there cannot be read back, "
                    f"{TRIES} times in a row; check that file system, or name another --output"
                )
            # The lock comes first, so that a claim is as old as its computation.
            with self._busy:
                if claimed := self._features.put_if_absent(claim, _content(self._claim)):
                    try:
                        # Its last owner may have finished between our look and our claim.
                        if self._found(place, info.rows) is None:
                            self._write(place, split, view, number, images["image"])
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
            return self._features.get(key)
        except ObjectMissing:
            return None

    def _found(self, place: str, rows: int) -> np.ndarray | None:
        """The features, or None if they are not there or damaged; then nothing is left of them."""
        try:
            known = FeatureObject.model_validate_json(self._features.get(f"{place}.json"))
        except ObjectMissing:
            return None
        except ValueError:
            self._features.delete(f"{place}.json")
            return None
        key = f"{place}-{known.sha256}.npy"
        try:
            path = self._features.fetch(key, sha256=known.sha256, size=known.bytes)
            features: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except (CorruptObject, ObjectMissing, FileNotFoundError):
            self._features.delete(f"{place}.json")
            self._features.delete(key)
            return None
        if features.shape != (rows, BASE_FEATURES):
            raise UserError(f"{key} in {self._features.url}: not features of this shard; delete it")
        return features

    def _write(self, place: str, split: str, view: int, number: int, images: np.ndarray) -> None:
        first = int(self._index.offsets(split)[number])
        samples = np.arange(first, first + len(images), dtype=np.int64)
        parts = []
        for start in range(0, len(images), BATCH):
            part = self._compute(
                tf.constant(images[start : start + BATCH]),
                tf.constant(samples[start : start + BATCH]),
                tf.constant(view, tf.int64),
            )
            parts.append(part.numpy())
            further = self._claim.model_copy(update={"images": start + len(part)})
            self._features.put(f"{place}.claim", _content(further))
        buffer = io.BytesIO()
        np.save(buffer, np.concatenate(parts), allow_pickle=False)
        content = buffer.getvalue()
        sha256 = hashlib.sha256(content).hexdigest()
        # Named by its content, so that two writers never mix: the first small file decides.
        self._features.put(f"{place}-{sha256}.npy", content)
        small = FeatureObject(sha256=sha256, bytes=len(content))
        self._features.put_if_absent(f"{place}.json", _content(small))


def _content(record: Record) -> bytes:
    return record.model_dump_json().encode()


def _forward(base: keras.Model, seed: int, shape: tuple[int, int, int]) -> Callable[..., tf.Tensor]:
    # One graph for every number of images: two of them, made for whichever shards came first, would
    # differ in the last digit.
    @tf.function(
        input_signature=[
            image_spec(shape),
            tf.TensorSpec((None,), tf.int64),
            tf.TensorSpec((), tf.int64),
        ]
    )
    def forward(images: tf.Tensor, samples: tf.Tensor, view: tf.Tensor) -> tf.Tensor:
        shown = tf.cond(
            view == PLAIN,
            lambda: tf.cast(images, tf.float32),
            lambda: augment.augment(images, seed=seed, view=view, samples=samples),
        )
        return base(shown, training=False)

    return forward
