"""Checkpoints: all that an interrupted experiment needs to go on as if nothing had happened.

A checkpoint is one object, written whole or not at all: an uncompressed `.npz`
with the state as JSON and the arrays by number. It is read without pickle.
"""

import io
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tlcluster.records import CHECKPOINTS, EpochRecord, Record
from tlcluster.store import Store

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
    """State and arrays, in the order of the variables they were read from."""

    state: TrainingState
    weights: list[np.ndarray]
    optimizer: list[np.ndarray]
    best: list[np.ndarray]
    """Weights of the best epoch; empty before the first epoch has ended."""


_GROUPS = ("weights", "optimizer", "best")


def save_checkpoint(run: Store, experiment: str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to `<experiment>/checkpoints/` and delete all but the newest."""
    state = checkpoint.state
    arrays = {"state": np.frombuffer(state.model_dump_json().encode(), np.uint8)}
    for group in _GROUPS:
        for number, array in enumerate(getattr(checkpoint, group)):
            arrays[f"{group}/{number:04d}"] = array
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.npz"
        np.savez(path, **arrays)  # type: ignore[arg-type]
        run.put(f"{experiment}/{CHECKPOINTS}/{state.epoch:04d}-{state.step:08d}.npz", path)
    for key in _keys(run, experiment)[:-KEPT]:
        run.delete(key)


def load_checkpoint(run: Store, experiment: str) -> Checkpoint | None:
    """The newest checkpoint that can be read, or None."""
    for key in reversed(_keys(run, experiment)):
        try:
            return _decode(run.get(key))
        except (zipfile.BadZipFile, ValueError, KeyError, EOFError):
            continue
    return None


def delete_checkpoints(run: Store, experiment: str) -> None:
    """Remove what a finished experiment no longer needs."""
    for key in _keys(run, experiment):
        run.delete(key)


def _keys(run: Store, experiment: str) -> list[str]:
    return sorted(found.key for found in run.list(f"{experiment}/{CHECKPOINTS}/"))


def _decode(content: bytes) -> Checkpoint:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        state = TrainingState.model_validate_json(arrays["state"].tobytes())
        groups: dict[str, Sequence[np.ndarray]] = {
            group: [arrays[name] for name in sorted(arrays.files) if name.startswith(group + "/")]
            for group in _GROUPS
        }
    return Checkpoint(state, **groups)  # type: ignore[arg-type]
