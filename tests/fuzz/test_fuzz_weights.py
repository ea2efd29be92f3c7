"""Weights files of strangers: HDF5, in their bytes and in what they name."""

import functools
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from hdf5_reader import TARGET
from hypothesis import given
from hypothesis import strategies as st
from mangle import damaged
from promise import TALLIES, Tally, fuzzed

from tlcluster.training.hdf5_check import check_hdf5
from tlcluster.training.shipped_weights import Convolution, hdf5

HERE = Path(__file__).parent
KERNEL = np.linspace(-1, 1, 54, dtype=np.float32).reshape(3, 3, 2, 3)


def of_keras(path: io.BytesIO) -> None:
    """As a `.weights.h5` file is laid out."""
    with h5py.File(path, "w") as file:
        for layer in ("conv2d", "dense"):
            group = file.create_group(f"_layer_checkpoint_dependencies/{layer}/vars")
            group["0"], group["1"] = KERNEL, np.zeros(3, np.float32)


def changed(change: Callable[[h5py.File], object]) -> bytes:
    """A file of Keras that has something more in it."""
    buffer = io.BytesIO()
    of_keras(buffer)
    with h5py.File(buffer, "a") as file:
        change(file)
    return buffer.getvalue()


def circle(file: h5py.File) -> None:
    file["round"] = file["/"]


def soft(file: h5py.File) -> None:
    file["link"] = h5py.SoftLink("/_layer_checkpoint_dependencies")


def other_file(file: h5py.File) -> None:
    file["link"] = h5py.ExternalLink("/etc/passwd", "/")


def other_numbers(file: h5py.File) -> None:
    file.create_dataset("outside", (8,), "u1", external=[("/etc/passwd", 0, 8)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((8,), "f4")
    layout[:] = h5py.VirtualSource("/tmp/none.h5", "x", (8,))  # noqa: S108
    file.create_virtual_dataset("virtual", layout)


def huge(file: h5py.File) -> None:
    file.create_dataset("huge", (2**40,), "f4", chunks=(2**10,), fillvalue=1.0)


def packed(file: h5py.File) -> None:
    file.create_dataset("packed", data=np.zeros(2**22, np.float32), compression="gzip")


def text(file: h5py.File) -> None:
    file["text"] = ["a", "b" * 1000]


def kind(file: h5py.File) -> None:
    file["kind"] = np.dtype("f4")


def large_attribute(file: h5py.File) -> None:
    file.attrs.create("large", np.zeros(2**13 - 100, "f8"))


def deep(file: h5py.File) -> None:
    group = file
    for _ in range(300):
        group = group.create_group("g")


REFUSED = (soft, other_file, other_numbers, virtual, huge, packed, text, kind)
ODD = (*REFUSED, circle, large_attribute, deep)


@functools.cache
def files() -> tuple[bytes, ...]:
    """A file of each kind that Keras writes, and odd ones."""
    older = hdf5({name: Convolution(KERNEL, np.zeros(3, np.float32)) for name in ("a", "b")})
    return (older, older, changed(lambda _: None), *map(changed, ODD))


@pytest.fixture(scope="module")
def reader() -> Iterator["Reader"]:
    found = Reader()
    yield found
    found.end()


class Reader:
    """`hdf5_reader.py` in a process that is started again if a file ends it."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def keeps(self, content: bytes) -> None:
        """Fails if the promise is broken."""
        if self.process is None:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, PATHS))}
            self.process = subprocess.Popen(
                [sys.executable, HERE / "hdf5_reader.py"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(len(content).to_bytes(8, "big") + content)
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            self.process = None
            pytest.fail(f"the process that read the file has ended, status {status}")
        answer = json.loads(line)
        tally = answer["tally"]
        TALLIES[TARGET] = Tally(**{**tally, "reasons": set(tally["reasons"])})
        assert answer["broken"] is None, answer["broken"]

    def end(self) -> None:
        if self.process is not None:
            self.process.communicate()


PATHS = (HERE, HERE.parents[1])


@fuzzed
@given(data=st.data())
def test_a_weights_file(data: st.DataObject, reader: Reader) -> None:
    whole = data.draw(st.sampled_from(files()))
    reader.keeps(data.draw(st.one_of(damaged(whole, 3), damaged(whole, 12))))


@pytest.mark.parametrize("odd", REFUSED)
def test_a_weights_file_that_names_others_or_claims_terabytes_is_refused(
    odd: Callable[[h5py.File], object],
) -> None:
    with pytest.raises(ValueError, match=r"^(it has |its arrays|an array is|the numbers)"):
        check_hdf5(changed(odd))


@pytest.mark.parametrize("fine", [lambda _: None, circle, large_attribute, deep])
def test_what_keras_may_write_is_taken(fine: Callable[[h5py.File], object]) -> None:
    check_hdf5(changed(fine))
    check_hdf5(files()[0])
