"""Where features lie: under a hash of everything that they depend on."""

import hashlib
import json
from typing import NamedTuple

from tlcluster.cinic10 import IMAGE_SHAPE
from tlcluster.storage.protocol import Store

FOLDER = "features"

PLAIN = 0
"""The view that is the image itself; augmented views count from 1."""

VERSION = 2
"""Changes when the same inputs give other features, if only in the last digit."""


class FeatureKey(NamedTuple):
    """What features depend on besides split, view and shard."""

    index_sha256: str
    weights: str
    """sha256 of the base's weights, or a name for random ones that holds their seed."""
    preprocess: str
    seed: int
    """Decides what the augmented views show."""

    def place(self, split: str, view: int) -> str:
        """The folder of one view of a split. Plain images do not depend on the seed."""
        facts = {
            "version": VERSION,
            "base": "vgg16",
            "image_shape": IMAGE_SHAPE,
            **self._asdict(),
            "seed": None if view == PLAIN else self.seed,
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return f"{FOLDER}/{digest[:32]}/{split}/{view:05d}"


def view_of(epoch: int, views: int | None) -> int:
    """The augmented view that an epoch shows: a fresh one, or the next of `views` in turn."""
    return epoch if views is None else 1 + (epoch - 1) % views


def delete_view(features: Store, key: FeatureKey, split: str, view: int) -> None:
    """Remove a view that every experiment has passed."""
    for found in features.list(f"{key.place(split, view)}/"):
        features.delete(found.key)
