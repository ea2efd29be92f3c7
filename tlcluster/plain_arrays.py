"""NumPy archives, read without pickle and into bounded memory.

Anybody may have written them. A few bytes may claim an array of terabytes, and of a member that is
packed with bzip2 or LZMA a block of 4 KiB can become gigabytes in one step.
"""

import io
import math
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_SUFFIX = ".npy"
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What NumPy writes."""


def read_arrays(
    content: bytes, most: int, names: Sequence[str] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """Arrays of an `.npz` archive, by name.

    All headers are read before the first array is made.

    Args:
        content: the archive.
        most: bytes that the arrays may have together.
        names: of the arrays, which decide the order of the result; None reads all.

    Raises:
        Exception: it is no such archive, lacks an array, or has more than `most` bytes. The readers
            of zip and npy raise exceptions of a dozen kinds, MemoryError among them.
    """
    if not content.startswith(b"PK"):
        raise ValueError("not an npz file")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.namelist() if names is None else [name + _SUFFIX for name in names]
        size = sum(_size(archive, member) for member in members)
        if size > most:
            raise ValueError(f"arrays of {size:.2g} bytes")
        return {member.removesuffix(_SUFFIX): _array(archive, member) for member in members}


def _size(archive: zipfile.ZipFile, member: str) -> int:
    """Bytes of an array, as the header of its file and the archive say alike."""
    info = archive.getinfo(member)
    if info.compress_type not in _PACKINGS:
        raise ValueError(f"packed with method {info.compress_type}")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, kind = np.lib.format.read_array_header_1_0(file)
        else:
            shape, _, kind = np.lib.format.read_array_header_2_0(file)
        if kind.hasobject:
            raise ValueError("an array of objects")
        size = math.prod(shape) * kind.itemsize
        if min(shape, default=0) < 0 or size != info.file_size - file.tell():
            raise ValueError(f"no array of shape {shape}")
    return size


def _array(archive: zipfile.ZipFile, member: str) -> npt.NDArray[Any]:
    with archive.open(member) as file:
        array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return array
