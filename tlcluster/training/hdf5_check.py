"""HDF5 files, looked through before Keras reads them.

Anybody may have written them. The format can name other files, as links or as the place of numbers,
and a few bytes can claim an array of terabytes, which Keras makes before it looks at its shape.
"""

import io
import math
from collections.abc import Iterator

import h5py

MOST_OBJECTS = 100_000
"""Groups and arrays. A large base has some thousands."""

MOST_RATIO = 8
"""Bytes of the arrays for each byte of the file. Keras compresses nothing."""

MOST_ATTRIBUTE = 2**24
"""Bytes of one attribute: names of layers and weights."""


def check_hdf5(content: bytes) -> None:
    """Refuse a file that is none, or not of the kind that Keras writes.

    Raises:
        ValueError: why, in one line.
    """
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            size = 0
            for count, item in enumerate(_objects(file)):
                if count == MOST_OBJECTS:
                    raise ValueError(f"it has more than {MOST_OBJECTS:,} groups and arrays")
                _check_attributes(item)
                size += _size(item)
                if size > MOST_RATIO * len(content):
                    raise ValueError("its arrays are far larger than the file")
    # A damaged file makes h5py raise exceptions of a dozen kinds, MemoryError among them.
    except Exception as error:  # noqa: BLE001
        raise ValueError(" ".join(str(error).split())[:300] or type(error).__name__) from None


def _objects(file: h5py.File) -> Iterator[h5py.Group | h5py.Dataset]:
    """The file itself and all that is in it, each once, also if its groups form a circle."""
    ahead, seen = [file], set()
    while ahead:
        item = ahead.pop()
        info = h5py.h5o.get_info(item.id)
        if info.addr in seen:
            continue
        seen.add(info.addr)
        yield item
        if isinstance(item, h5py.Group):
            for name in item:
                if not isinstance(item.get(name, getlink=True), h5py.HardLink):
                    raise ValueError("it has a link, maybe to another file")
                ahead.append(item[name])


def _size(item: h5py.Group | h5py.Dataset) -> int:
    """Bytes of an array; 0 for a group."""
    if isinstance(item, h5py.Group):
        return 0
    if not isinstance(item, h5py.Dataset):
        raise ValueError("it has something that is neither a group nor an array")
    if item.is_virtual or item.external:
        raise ValueError("the numbers of an array are in another file")
    if item.dtype.kind not in "biuf" or item.shape is None:
        raise ValueError("an array is not of numbers")
    return math.prod(item.shape) * item.dtype.itemsize


def _check_attributes(item: h5py.Group | h5py.Dataset) -> None:
    for name in item.attrs:
        attribute = item.attrs.get_id(name)
        if math.prod(attribute.shape) * attribute.dtype.itemsize > MOST_ATTRIBUTE:
            raise ValueError("an attribute is far too large")
