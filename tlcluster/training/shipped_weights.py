"""VGG16's ImageNet weights as the package ships them: 8 bits a number instead of 32.

The file is a NumPy `.npz` archive, compressed by xz. Each of the 13 convolutions
has three arrays in it:

    <layer>.kernel    int8 (3, 3, inputs, outputs)
    <layer>.scale     float32 (outputs,); kernel × scale is close to the published kernel
    <layer>.bias      float32 (outputs,); as published

`python -m tlcluster.training.make_shipped_weights` makes the file from the
published one; `weights_files/README.md` has its origin and licence.
"""

import hashlib
import importlib.resources
import io
import lzma
from collections.abc import Mapping
from typing import NamedTuple

import h5py
import numpy as np

from tlcluster.errors import UserError, from_os_error

BASE = "vgg16"
"""The backbone whose weights are shipped."""
FILE = "vgg16-imagenet-8bit.npz.xz"
SHA256 = "90ad9846e263aa895cec42f69ca5b19f3b929f490e44a6b6364b66f817f1b1c8"

LEVELS = 127
"""Largest absolute value of a quantised number; −128 is not used."""


class Convolution(NamedTuple):
    """The weights of one layer."""

    kernel: np.ndarray
    """float32 (3, 3, inputs, outputs)."""
    bias: np.ndarray
    """float32 (outputs,)."""


def shipped_weights() -> bytes:
    """The weights as an HDF5 file in the layout of the published one.

    Raises:
        UserError: the file of the package is missing or damaged.
    """
    file = importlib.resources.files("tlcluster.training") / "weights_files" / FILE
    try:
        content = file.read_bytes()
    except OSError as error:
        raise from_os_error(error, file, "install tlcluster again") from None
    actual = hashlib.sha256(content).hexdigest()
    if actual != SHA256:
        raise UserError(f"{file}: sha256 is {actual}, expected {SHA256}; install tlcluster again")
    return hdf5(unpacked(content))


def packed(layers: Mapping[str, Convolution]) -> bytes:
    """The file that `unpacked` reads: the same bytes for the same weights."""
    arrays: dict[str, np.ndarray] = {}
    for name, layer in layers.items():
        scale = np.abs(layer.kernel).max((0, 1, 2)) / np.float32(LEVELS)
        divisor = np.where(scale > 0, scale, np.float32(1))
        arrays[f"{name}.kernel"] = np.rint(layer.kernel / divisor).astype(np.int8)
        arrays[f"{name}.scale"] = scale
        arrays[f"{name}.bias"] = layer.bias
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    # The numbers have no structure above the byte, so contexts of other bytes only cost space.
    lzma2 = {"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 0, "lp": 0, "pb": 0}
    return lzma.compress(buffer.getvalue(), lzma.FORMAT_XZ, filters=[lzma2])


def unpacked(content: bytes) -> dict[str, Convolution]:
    """Layer → its weights, in the order of the file.

    Args:
        content: what `packed` returned. It is trusted: check its hash first.
    """
    with np.load(io.BytesIO(lzma.decompress(content)), allow_pickle=False) as arrays:
        names = [name.removesuffix(".kernel") for name in arrays if name.endswith(".kernel")]
        return {
            name: Convolution(
                arrays[f"{name}.kernel"] * arrays[f"{name}.scale"], arrays[f"{name}.bias"]
            )
            for name in names
        }


def hdf5(layers: Mapping[str, Convolution]) -> bytes:
    """A weights file that Keras loads into a model with these layers, in this order."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["backend"] = "tensorflow"
        file.attrs["layer_names"] = list(layers)
        for name, layer in layers.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/kernel:0", f"{name}/bias:0"]
            group[f"{name}/kernel:0"] = layer.kernel
            group[f"{name}/bias:0"] = layer.bias
    return buffer.getvalue()


def read_hdf5(content: bytes) -> dict[str, Convolution]:
    """Layer → its weights, of a weights file of VGG16; layers without weights are left out."""
    with h5py.File(io.BytesIO(content)) as file:
        layers = {}
        for layer in file.attrs["layer_names"]:
            group = file[layer]
            weights = [group[name][()] for name in group.attrs["weight_names"]]
            if weights:
                layers[group.name.strip("/")] = Convolution(*weights)
        return layers
