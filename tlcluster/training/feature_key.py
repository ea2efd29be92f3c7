"""Where features are stored: under a hash of everything that they depend on."""

import hashlib
import json
from collections.abc import Iterable
from typing import NamedTuple

from tlcluster.backbones import LAST
from tlcluster.experiments import AugmentationName
from tlcluster.records import FEATURES
from tlcluster.storage.protocol import Store
from tlcluster.training.devices import FLOAT32

PLAIN = 0
"""The view that shows the image unchanged; augmented views count from 1."""

MIRRORED = -1
"""The view that shows the image flipped horizontally."""

VERSION = 2
"""Increased when the same inputs give different features, even in the last digit only."""


class FeatureKey(NamedTuple):
    """Everything that features depend on, apart from split, view and shard."""

    index_sha256: str
    weights: str
    """sha256 of the base's weights; for random weights, a name that contains their seed."""
    preprocess: str
    seed: int
    """Seed of the augmented views."""
    base: str
    """Name of the base."""
    image_shape: tuple[int, int, int]
    """(height, width, channels)."""
    upsampled: str = ""
    """Size and method, if the images are made larger."""
    taps: str = LAST
    """Maps of the base that the features are made of; see `Experiment.feature_taps`."""
    augmentation: AugmentationName = "study"
    """Of the augmented views."""
    precision: str = FLOAT32
    """In which the base computes. Features of bfloat16 differ from those of float32 by far more
    than rounding in float32 does."""
    end: str = LAST
    """Where the frozen part of the base ends; see `Experiment.feature_end`."""

    def place(self, split: str, view: int) -> str:
        """The folder of one view of a split. Plain images do not depend on the augmentation."""
        defaults = self._field_defaults
        drawn = view not in (PLAIN, MIRRORED)
        plain = {"seed": None, "augmentation": defaults["augmentation"]}
        key = {**self._asdict(), **({} if drawn else plain)}
        facts = {
            "version": VERSION,
            # A field with its default adds nothing: features from before the field are still found.
            **{k: v for k, v in key.items() if k not in defaults or v != defaults[k]},
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        name = "mirrored" if view == MIRRORED else f"{view:05d}"
        return f"{FEATURES}/{digest[:32]}/{split}/{name}"

    def group(self, split: str, view: int) -> str:
        """Names the features whose cost is shared out together: those of a split, plain, mirrored,
        or in all augmented views."""
        folder, _, _ = self.place(split, view).removeprefix(f"{FEATURES}/").rpartition("/")
        kind = {PLAIN: "plain", MIRRORED: "mirrored"}.get(view, "views")
        return f"{folder}/{kind}"


def view_of(epoch: int, views: int | None) -> int:
    """The augmented view of an epoch: a new one if `views` is None, else the next of `views`."""
    return epoch if views is None else 1 + (epoch - 1) % views


def delete_view(
    features: Store, key: FeatureKey, split: str, view: int, precisions: Iterable[str] = (FLOAT32,)
) -> None:
    """Delete a view that no experiment needs any more, in each of these precisions."""
    for precision in precisions:
        place = key._replace(precision=precision).place(split, view)
        for found in features.list(f"{place}/"):
            features.delete(found.key)
