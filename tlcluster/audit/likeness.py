"""Two images → how far they are from showing the same, by their pixels.

The distance is 1 − the correlation of the two at the shift where they agree best, one of them
mirrored if that is better still. A correlation does not depend on brightness and contrast, and here
each colour has a brightness of its own, so that a colour cast does not matter either.
"""

import itertools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tlcluster.audit.descriptors import Floats, Rows

Images = npt.NDArray[np.uint8]

SIDE = 32
"""Larger images are reduced to this many pixels a side before they are compared."""
SHIFT = 2
"""The largest shift that is tried, in both directions, in those pixels."""
NOISE = 2.0
"""Grey levels. What contrasts with its surroundings by less is not compared: it is noise, or what
a JPEG encoder has left."""

_PAIRS = 512
"""Pairs that are compared at once: 25 MB."""


def distances(
    first: Images, second: Images, left: Rows, right: Rows, advance: Callable[[int], None]
) -> npt.NDArray[np.float64]:
    """The distance of each pair, float64 (pairs,), between 0 and 2; the same in both directions.

    Args:
        first: uint8 (n, height, width, 3), sides of at most `SIDE`; see `reduced`.
        second: images of the same size.
        left: of each pair, the position in `first`.
        right: of each pair, the position in `second`.
        advance: is called with the number of pairs that were compared.
    """
    found = np.empty(len(left))
    for at in range(0, len(left), _PAIRS):
        here = slice(at, at + _PAIRS)
        found[here] = _block(first[left[here]], second[right[here]])
        advance(len(left[here]))
    return found


def _block(first: Images, second: Images) -> npt.NDArray[np.float64]:
    a, b = sharpened(first), sharpened(second)
    shifts = range(-SHIFT, SHIFT + 1)
    best = np.full(len(a), -1.0)
    for other in (b, b[:, :, ::-1]):
        for down, right in itertools.product(shifts, shifts):
            best = np.maximum(best, _correlation(_cut(a, down, right), _cut(other, -down, -right)))
    # Of equal images rounding leaves a little more or less than 1.
    return np.clip(1 - best, 0, 2)


def _cut(images: Floats, down: int, right: int) -> Floats:
    """What is left of images when they are moved out of the frame by so many pixels."""
    height, width = images.shape[1:3]
    return images[:, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]


def _correlation(a: Floats, b: Floats) -> npt.NDArray[np.float64]:
    """(n,): of images of equal shape, each colour without its mean."""
    pixels = a.shape[1] * a.shape[2]
    mean_a, mean_b = a.mean(axis=(1, 2)), b.mean(axis=(1, 2))

    def product(x: Floats, y: Floats, mean_x: Floats, mean_y: Floats) -> npt.NDArray[np.float64]:
        whole = np.einsum("nhwc,nhwc->n", x, y).astype(np.float64)
        return whole - pixels * (mean_x * mean_y).sum(axis=1)

    noise = NOISE**2 * pixels * 3
    power = np.maximum(product(a, a, mean_a, mean_a), noise) * np.maximum(
        product(b, b, mean_b, mean_b), noise
    )
    return product(a, b, mean_a, mean_b) / np.sqrt(power)


def sharpened(images: Images) -> Floats:
    """The images as float32, less a part of what is blurred around each pixel.

    Photographs of sky, sea or grass agree in their brightest and darkest parts without showing the
    same. Finer details are less often alike by chance.
    """
    return images.astype(np.float32)


def reduced(images: Images) -> Images:
    """Images with sides of at most `SIDE`, by averaging; smaller sides stay.

    Args:
        images: uint8 (n, height, width, 3).
    """
    height, width = images.shape[1:3]
    if max(height, width) <= SIDE:
        return images
    rows, columns = averages(height, min(height, SIDE)), averages(width, min(width, SIDE))
    found = np.empty((len(images), len(rows), len(columns), 3), np.uint8)
    # One by one: of large images a few hundred would be gigabytes as float32.
    for number, image in enumerate(images):
        lower = np.tensordot(rows, image.astype(np.float32), 1)
        found[number] = np.rint(np.tensordot(lower, columns, (1, 1)).swapaxes(1, 2))
    return found


def averages(size: int, count: int) -> Floats:
    """float32 (count, size): row r averages what the r-th of `count` equal parts covers."""
    ends = np.arange(count + 1) * (size / count)
    low, high = ends[:-1, np.newaxis], ends[1:, np.newaxis]
    at = np.arange(size)
    covered = np.clip(np.minimum(high, at + 1) - np.maximum(low, at), 0, None)
    return (covered * (count / size)).astype(np.float32)
