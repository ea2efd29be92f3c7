"""CINIC-10 as published: classes, splits, origins, and the address of the archive.

Source: Darlow, Crowley, Antoniou and Storkey, "CINIC-10 is not ImageNet or
CIFAR-10", 2018, arXiv:1810.03505.
"""

import re
from collections.abc import Iterable, Sequence

NAME = "cinic-10"
ARCHIVE_URL = "https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz"
"""The official archive: 270,000 PNG images of 32×32, 90,000 a split."""

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
"""Class folders; a label is a position in this tuple."""

SPLITS = ("train", "valid", "test")

IMAGE_SHAPE = (32, 32, 3)

ORIGINS = ("cifar", "imagenet", "other")
"""Where an image comes from; an origin code in a shard is a position in this tuple."""

_IMAGENET_NAME = re.compile(r"n\d{8}_")


def is_published(classes: Sequence[str], size: tuple[int, int], names: Iterable[str]) -> bool:
    """Whether a data set is CINIC-10 or a part of it.

    CIFAR-10 has the same classes and size; only the file names tell them apart.

    Args:
        classes: label → name.
        size: width and height of the images in pixels.
        names: file names of all images.
    """
    return (
        tuple(classes) == CLASSES
        and size == (IMAGE_SHAPE[1], IMAGE_SHAPE[0])
        and any(origin_of(name) != "other" for name in names)
    )


def origin_of(source: str) -> str:
    """The origin according to a file name: `cifar-10-*` or `n<synset>_*`, else `other`."""
    if source.startswith("cifar-10-"):
        return "cifar"
    return "imagenet" if _IMAGENET_NAME.match(source) else "other"
