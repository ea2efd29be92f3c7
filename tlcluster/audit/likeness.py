"""Two images → how far they are from showing the same, by their pixels.

The distance is 1 − the correlation of their details of medium size at the shift where they agree
best, one of them mirrored if that is better still. It does not depend on brightness and contrast,
nor on a colour cast, and little on JPEG compression. `docs/audit.md` has what it was measured on.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tlcluster.audit.descriptors import Floats, Rows

Images = npt.NDArray[np.uint8]

SIDE = 32
"""Larger images are reduced to this many pixels a side before they are compared."""
SHIFT = 2
"""The largest shift that is tried, in both directions, in those pixels."""
SHIFTS = tuple(itertools.product(range(-SHIFT, SHIFT + 1), repeat=2))
"""Down and right. The opposite of one has the same place from the end."""
FINE = 1
COARSE = 4
"""Radii of the two squares of pixels between whose means the details lie that are compared."""
NOISE = 2.0
"""Grey levels, a standard deviation. Details of less contrast are noise, or what a JPEG encoder has
left, and are like nothing."""

_PAIRS = 256
"""Pairs that are compared at once: 20 MB."""


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
        found[here] = _block(first, second, left[here], right[here])
        advance(len(left[here]))
    return found


def _block(first: Images, second: Images, left: Rows, right: Rows) -> npt.NDArray[np.float64]:
    a, b = _framed(first, left), _framed(second, right)
    best = np.maximum(_correlation(a, b), _correlation(a, _mirrored(b)))
    # Of equal images rounding leaves a little more or less than 1.
    found: npt.NDArray[np.float64] = np.clip(1 - best, 0, 2)
    return found


class _Framed(NamedTuple):
    """Images in a frame of zeros, for products at any shift up to `SHIFT`."""

    flat: Floats
    """(n, 3·h·w): one colour after another, with the frame."""
    sums: Floats
    """(n, 3, shifts): of each colour, over what a shift leaves inside the other image."""
    squares: Floats
    """(n, shifts): of all colours."""
    shape: tuple[int, int]
    """Height and width, without the frame."""


def _framed(images: Images, rows: Rows) -> _Framed:
    # An image is in several pairs.
    once, place = np.unique(rows, return_inverse=True)
    planes = sharpened(images[once])
    # Without their means, sums of float32 stay exact enough.
    planes = planes - planes.mean(axis=(2, 3), keepdims=True)
    count, _, height, width = planes.shape
    inside = _inside(height, width)
    sums = planes.reshape(count, 3, -1) @ inside
    squares = (planes**2).sum(axis=1).reshape(count, -1) @ inside
    edge = ((0, 0), (0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT))
    flat = np.pad(planes, edge).reshape(count, -1)
    return _Framed(flat[place], sums[place], squares[place], (height, width))


def _mirrored(images: _Framed) -> _Framed:
    """The mirror images."""
    height, width = images.shape
    planes = images.flat.reshape(-1, 3 * (height + 2 * SHIFT), width + 2 * SHIFT)
    order = [SHIFTS.index((down, -right)) for down, right in SHIFTS]
    flat = planes[:, :, ::-1].reshape(images.flat.shape)
    return _Framed(flat, images.sums[:, :, order], images.squares[:, order], images.shape)


def _inside(height: int, width: int) -> Floats:
    """(pixels, shifts): 1 for a pixel that lies inside the other image at this shift."""
    found = np.zeros((height, width, len(SHIFTS)), np.float32)
    for number, (down, right) in enumerate(SHIFTS):
        rows = slice(max(-down, 0), height - max(down, 0))
        found[rows, max(-right, 0) : width - max(right, 0), number] = 1
    return found.reshape(height * width, -1)


def _correlation(a: _Framed, b: _Framed) -> npt.NDArray[np.float64]:
    """(n,): the largest one of all shifts, each colour without its mean in what is compared."""
    height, width = a.shape
    stride, size = width + 2 * SHIFT, a.flat.shape[1]
    pixels = np.array([(height - abs(down)) * (width - abs(right)) for down, right in SHIFTS])
    # Moving b by a row is moving its numbers by a row's length: the frame keeps rows and colours
    # apart.
    moves = [down * stride + right for down, right in SHIFTS]
    products = np.stack(
        [
            np.einsum(
                "np,np->n",
                a.flat[:, max(-move, 0) : size - max(move, 0)],
                b.flat[:, max(move, 0) : size - max(-move, 0)],
            )
            for move in moves
        ],
        axis=1,
    ).astype(np.float64)
    # The pixels of b that lie inside a are those of a inside b at the opposite shift.
    sums, squares = b.sums[:, :, ::-1], b.squares[:, ::-1]
    products -= (a.sums * sums).sum(axis=1) / pixels
    noise = 3 * NOISE**2 * pixels
    power = np.maximum(a.squares - (a.sums**2).sum(axis=1) / pixels, noise)
    power = power * np.maximum(squares - (sums**2).sum(axis=1) / pixels, noise)
    return np.asarray((products / np.sqrt(power)).max(axis=1))


def sharpened(images: Images) -> Floats:
    """Images as float32 planes (n, 3, height, width) without the coarsest and the finest details.

    Photographs of sky, sea or grass agree in their large bright and dark parts without showing the
    same, and the finest details are what a JPEG encoder changes.
    """
    planes = np.moveaxis(images, 3, 1).astype(np.float32, order="C")
    return _blurred(planes, FINE) - _blurred(planes, COARSE)


def _blurred(planes: Floats, radius: int) -> Floats:
    """Each value replaced by the mean of the square around it, as far as that is inside."""
    height, width = planes.shape[2:]
    return np.asarray(_means(height, radius) @ planes @ _means(width, radius).T, np.float32)


def _means(size: int, radius: int) -> Floats:
    """float32 (size, size): row r averages the values up to `radius` away from r."""
    at = np.arange(size)
    near = np.abs(at[:, np.newaxis] - at) <= radius
    return np.asarray(near / near.sum(axis=1, keepdims=True), np.float32)


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
    return np.asarray(covered * (count / size), np.float32)
