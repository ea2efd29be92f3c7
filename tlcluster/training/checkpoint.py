"""Checkpoints: all that an interrupted experiment needs to go on as if nothing had happened.

A checkpoint is one object, written whole or not at all: an uncompressed `.npz`
with the state as JSON and the arrays by number, read without pickle:

    <experiment>/checkpoints/<epoch>-<step>-<sha256>.npz

The sha256 is that of its content. Without it a damaged zip directory can look
like one with fewer arrays.
"""

import hashlib
import io
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tlcluster.records import CHECKPOINTS, EpochRecord, Record
from tlcluster.storage.protocol import Store

KEPT = 2
"""Newest checkpoints that are kept: the last one, and one in case it cannot be read."""


class TrainingState(Record):
    """Where training is, besides the weights."""

    epoch: int = 1
    """The epoch in progress; counts from 1."""
    step: int = 0
    """Steps of it that are done: the position in the data."""
    loss_sum: float = 0.0
    correct: int = 0
    rows: int = 0
    """Sums over the steps done, of losses, right answers and images, all workers together."""
    train_seconds: float = 0.0
    """Time the steps done took."""
    history: tuple[EpochRecord, ...] = ()
    best_epoch: int | None = None
    best_accuracy: float = -1.0
    stopped_early: bool = False
    wall_seconds: float = 0.0
    """Time with workers running until this checkpoint, all attempts together."""

    @property
    def waited(self) -> int:
        """Epochs finished since the best one."""
        return len(self.history) - (self.best_epoch or 0)


class Checkpoint(NamedTuple):
    """State and arrays, in the order of the variables they were read from.

    To be saved, variables do as well: each is read when it is written, so that they are not all
    in memory twice.
    """

    state: TrainingState
    weights: list[np.ndarray]
    optimizer: list[np.ndarray]
    best: list[np.ndarray]
    """Weights of the best epoch; empty before the first epoch has ended."""


_GROUPS = ("weights", "optimizer", "best")


def save_checkpoint(run: Store, experiment: str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to `<experiment>/checkpoints/`; it and the one before are kept."""
    state = checkpoint.state
    arrays = {"state": np.frombuffer(state.model_dump_json().encode(), np.uint8)}
    for group in _GROUPS:
        for number, array in enumerate(getattr(checkpoint, group)):
            arrays[f"{group}/{number:04d}"] = array
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.npz"
        np.savez(path, **arrays)  # type: ignore[arg-type]
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        key = f"{experiment}/{CHECKPOINTS}/{state.epoch:04d}-{state.step:08d}-{sha256}.npz"
        run.put(key, path)
    keys = _keys(run, experiment)
    # What claims to be ahead of this one could not be read, or training would have gone on there.
    kept = [other for other in keys if other <= key][-KEPT:]
    for other in keys:
        if other not in kept:
            run.delete(other)


def load_checkpoint(run: Store, experiment: str) -> Checkpoint | None:
    """The newest checkpoint whose content is what was written, or None."""
    for key in reversed(_keys(run, experiment)):
        content = run.get(key)
        if key.endswith(f"-{hashlib.sha256(content).hexdigest()}.npz"):
            return _decode(content)
    return None


def delete_checkpoints(run: Store, experiment: str) -> None:
    """Remove what a finished experiment no longer needs."""
    for key in _keys(run, experiment):
        run.delete(key)


_NAME = re.compile(r"\d{4,}-\d{8,}-[0-9a-f]{64}\.npz")


def _keys(run: Store, experiment: str) -> list[str]:
    """Of the checkpoints, the newest last; what others keep beside them is not ours to delete."""
    folder = f"{experiment}/{CHECKPOINTS}/"
    found = (item.key for item in run.list(folder))
    return sorted(key for key in found if _NAME.fullmatch(key.removeprefix(folder)))


def _decode(content: bytes) -> Checkpoint:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        state = TrainingState.model_validate_json(arrays["state"].tobytes())
        groups: dict[str, Sequence[np.ndarray]] = {
            group: [arrays[name] for name in sorted(arrays.files) if name.startswith(group + "/")]
            for group in _GROUPS
        }
    return Checkpoint(state, **groups)  # type: ignore[arg-type]
