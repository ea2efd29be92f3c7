"""What is known about CINIC-10 as published: classes, splits, origins, and where the archive is.

Source: Darlow, Crowley, Antoniou and Storkey, "CINIC-10 is not ImageNet or
CIFAR-10", 2018, arXiv:1810.03505.
"""

import re
from typing import Literal

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
Split = Literal["train", "valid", "test"]

IMAGE_SHAPE = (32, 32, 3)

ORIGINS = ("cifar", "imagenet", "other")
"""Where an image was taken from; an origin code in a shard is a position in this tuple."""

_IMAGENET_NAME = re.compile(r"n\d{8}_")


def origin_of(source: str) -> str:
    """The origin that a file name tells: `cifar-10-*` or `n<synset>_*`, else `other`."""
    if source.startswith("cifar-10-"):
        return "cifar"
    return "imagenet" if _IMAGENET_NAME.match(source) else "other"
