"""Images → descriptors: few numbers each, alike for images that show the same.

A descriptor has the low frequencies of a two-dimensional cosine transform, without the mean and
with length 1. They are weighted by the root of the frequency, since photographs have most of their
energy in the lowest. The product of two descriptors is their similarity.

A mirror image has the same coefficients, but for the sign of those with an odd horizontal
frequency. So even and odd coefficients are kept apart, and one product of each gives the similarity
to an image and to its mirror image: even + odd and even − odd.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

LUMINANCE = 8
"""Frequencies in each direction of the brightness."""
CHROMINANCE = 4
"""The same of the two colour differences, which photographs have less detail in."""
WEIGHT = 0.5
"""Exponent of the frequency in the weights."""

_BLOCK_BYTES = 2**25
"""Images are transformed in blocks whose pixels take about this much as float32."""

_OPPONENT = np.array([[1, 1, 1], [1, 0, -1], [0.5, -1, 0.5]], np.float64) / np.array(
    [[3**0.5], [2**0.5], [1.5**0.5]]
)
"""RGB → brightness, red − blue, and magenta − green; orthonormal."""


class Descriptors(NamedTuple):
    """Descriptors of n images; see the module."""

    even: Floats
    """(n, e)."""
    odd: Floats
    """(n, o)."""

    @property
    def images(self) -> int:
        return len(self.even)


def describe(images: npt.NDArray[np.uint8]) -> Descriptors:
    """The descriptors of RGB images, uint8 (n, height, width, 3).

    An image of one colour has nothing but a mean. Its descriptor is 0, and it is like no other.
    """
    count, height, width = images.shape[:3]
    step = max(1, _BLOCK_BYTES // (height * width * 12))
    parts = [_block(images[at : at + step]) for at in range(0, count, step)]
    return joined(parts)


def joined(parts: list[Descriptors]) -> Descriptors:
    """Descriptors of several groups of images, one after another."""
    return Descriptors(
        np.concatenate([one.even for one in parts]), np.concatenate([one.odd for one in parts])
    )


def _block(images: npt.NDArray[np.uint8]) -> Descriptors:
    count, height, width = images.shape[:3]
    # The pixels of a row lie together, so the vertical transform is one product for each image.
    rows = cosines(height, LUMINANCE) @ images.astype(np.float32).reshape(count, height, -1)
    planes = rows.reshape(count, LUMINANCE, width, 3).swapaxes(2, 3)
    found = (planes @ cosines(width, LUMINANCE).T).swapaxes(1, 2)
    opponent = np.tensordot(found, _OPPONENT.astype(np.float32), (1, 1))
    # Now (images, vertical, horizontal, colours).
    weighted = opponent * _weights()
    small = weighted[:, :CHROMINANCE, :CHROMINANCE, 1:]
    even = [weighted[:, :, ::2, 0], small[:, :, ::2]]
    odd = [weighted[:, :, 1::2, 0], small[:, :, 1::2]]
    halves = [np.concatenate([one.reshape(count, -1) for one in half], 1) for half in (even, odd)]
    length = np.sqrt(sum((half.astype(np.float64) ** 2).sum(1) for half in halves))
    # Rounding leaves something of the mean in an image of one colour: below a grey level, nothing.
    scale = np.where(length > 1, 1 / np.maximum(length, 1), 0).astype(np.float32)[:, np.newaxis]
    return Descriptors(halves[0] * scale, halves[1] * scale)


def cosines(size: int, count: int) -> Floats:
    """The first rows of the orthonormal cosine transform of this many values (DCT-II), float32
    (count, size). The first is not scaled differently: nobody reads it."""
    angle = np.pi * np.outer(np.arange(count), np.arange(size) + 0.5) / size
    return np.asarray(np.cos(angle) * np.sqrt(2 / size), np.float32)


def _weights() -> Floats:
    """(LUMINANCE, LUMINANCE, 1); 0 for the mean."""
    frequency = np.hypot(*np.meshgrid(np.arange(LUMINANCE), np.arange(LUMINANCE)))
    return (frequency**WEIGHT).astype(np.float32)[:, :, np.newaxis]
