"""Checkpoints: what an interrupted training needs to continue exactly where it stopped.

A checkpoint is one object, written as a whole: an uncompressed `.npz` with the
state as JSON and the numbered arrays, read without pickle:

    <training>/checkpoints/<epoch>-<step>-<sha256>.npz

The sha256 is that of the content. Without it, a damaged zip directory could
look like one with fewer arrays.
"""

import hashlib
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tlcluster.plain_arrays import read_arrays
from tlcluster.records import CHECKPOINTS
from tlcluster.storage.protocol import ObjectMissing, ObjectTooLarge, Store
from tlcluster.training.state import TrainingState

KEPT = 2
"""Checkpoints to keep: the newest, and the one before in case the newest cannot be read."""


class Checkpoint(NamedTuple):
    """State and arrays, in the order of the variables that they belong to.

    For saving, the arrays may be variables. Each is then read while it is written, so that
    they are not all in memory twice.
    """

    state: TrainingState
    weights: list[np.ndarray]
    optimizer: list[np.ndarray]
    best: list[np.ndarray]
    """Weights of the best epoch; empty before the first epoch has ended."""


_GROUPS = ("weights", "optimizer", "best")


def save_checkpoint(run: Store, folder: str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to `<training>/checkpoints/`; it and the one before are kept."""
    state = checkpoint.state
    arrays = {"state": np.frombuffer(state.model_dump_json().encode(), np.uint8)}
    for group in _GROUPS:
        for number, array in enumerate(getattr(checkpoint, group)):
            arrays[f"{group}/{number:04d}"] = array
    with tempfile.TemporaryDirectory() as local:
        path = Path(local) / "checkpoint.npz"
        np.savez(path, **arrays)  # type: ignore[arg-type]
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        key = f"{folder}/{CHECKPOINTS}/{state.epoch:04d}-{state.step:08d}-{sha256}.npz"
        run.put(key, path)
    keys = _keys(run, folder)
    # A later checkpoint must be unreadable, or we would have resumed from it.
    kept = [other for other in keys if other <= key][-KEPT:]
    for other in keys:
        if other not in kept:
            run.delete(other)


class Loaded(NamedTuple):
    """A checkpoint and the object that held it."""

    key: str
    checkpoint: Checkpoint


def load_checkpoint(
    run: Store, folder: str, fits: Callable[[Checkpoint], bool] = lambda _: True
) -> Loaded | None:
    """The newest checkpoint that is whole and that fits, or None.

    Args:
        run: the run's folder.
        folder: of the training, in the run's.
        fits: whether the training could have written a checkpoint. Anyone who can write to the
            folder can compute the sha256 in the name.
    """
    for key in reversed(_keys(run, folder)):
        try:
            content = run.get(key)
        except (ObjectMissing, ObjectTooLarge):
            continue
        if key.endswith(f"-{hashlib.sha256(content).hexdigest()}.npz"):
            checkpoint = _decoded(content)
            if checkpoint is not None and fits(checkpoint):
                return Loaded(key, checkpoint)
    return None


def delete_checkpoints(run: Store, folder: str) -> None:
    """Remove the checkpoints of a finished experiment."""
    for key in _keys(run, folder):
        run.delete(key)


_NAME = re.compile(r"\d{4,}-\d{8,}-[0-9a-f]{64}\.npz")


def _keys(run: Store, folder: str) -> list[str]:
    """Keys of the checkpoints, the newest last. Other objects in the folder are not ours."""
    prefix = f"{folder}/{CHECKPOINTS}/"
    found = (item.key for item in run.list(prefix))
    return sorted(key for key in found if _NAME.fullmatch(key.removeprefix(prefix)))


def _decoded(content: bytes) -> Checkpoint | None:
    """The checkpoint in the content of an object, or None if it is none."""
    try:
        # The archive is not compressed, so the arrays are no larger than it.
        arrays = read_arrays(content, len(content))
        state = TrainingState.model_validate_json(arrays["state"].tobytes())
    # The readers of zip and npy raise exceptions of a dozen kinds, MemoryError among them.
    except Exception:  # noqa: BLE001
        return None
    groups = {
        group: [arrays[name] for name in sorted(arrays) if name.startswith(group + "/")]
        for group in _GROUPS
    }
    return Checkpoint(state, **groups)
