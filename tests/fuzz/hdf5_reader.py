"""Reads the HDF5 files that it is sent, each held to the promise; a process of its own.

The library below h5py is written in C: a file that it cannot bear ends the process.
"""

import dataclasses
import io
import json
import sys
import traceback
from typing import Any, BinaryIO

import h5py
import numpy as np
from promise import TALLIES, kept

from tlcluster.training.hdf5_check import check_hdf5

TARGET = "weights"


def read(content: bytes) -> int:
    """Check a file, then read all that is in it, as Keras might. Returns the numbers in it."""
    check_hdf5(content)
    numbers = 0

    def visit(_name: str, item: Any) -> None:
        nonlocal numbers
        _ = [item.attrs[name] for name in item.attrs]
        if isinstance(item, h5py.Dataset):
            numbers += np.asarray(item).size

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            visit("", file)
            file.visititems(visit)
    # `tlcluster.training.model` takes these from Keras for a file with other weights.
    except (AttributeError, IndexError, KeyError, OSError, RuntimeError, TypeError) as error:
        raise ValueError(type(error).__name__) from None
    return numbers


def serve(asked: BinaryIO, answers: BinaryIO) -> None:
    """Read files, each after its length, and answer each with a line of JSON."""
    while length := asked.read(8):
        content = asked.read(int.from_bytes(length, "big"))
        broken = None
        try:
            kept(TARGET, lambda content=content: read(content), refusal=ValueError)
        except BaseException:  # noqa: BLE001
            broken = traceback.format_exc()
        tally = dataclasses.asdict(TALLIES[TARGET])
        answer = {"broken": broken, "tally": {**tally, "reasons": sorted(tally["reasons"])}}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
