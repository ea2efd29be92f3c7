"""Records are read and checked here. Anybody may have written them, and a disk may be damaged.

Whatever a record holds, the rest of the report can rely on this: numbers are
finite and of a sensible size, texts can be encoded, and arrays fit together.
Everything else is a `UserError` of one line that names the file.
"""

import math
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from tlcluster.errors import UserError
from tlcluster.plain_arrays import read_arrays
from tlcluster.records import EpochRecord, HangRecord, LayerRecord
from tlcluster.report.formats import shorten
from tlcluster.report.metrics import Predictions
from tlcluster.storage.protocol import (
    LARGEST,
    LARGEST_RECORD,
    ObjectMissing,
    ObjectTooLarge,
    Store,
)

LARGEST_ARRAYS = 2**33
"""Bytes of the three arrays of predictions together: twice a million images of 1,000 classes."""

LARGEST_NUMBER = 1e15
"""Above every count of bytes, images or seconds of a run. Matplotlib cannot draw 1e308."""

LARGEST_SIDE = 2**31
"""Of a layer's output."""

_RATES = frozenset({"learning_rate", "weight_decay"})
"""Numbers of a recipe that no figure shows. They only have to be finite."""

_MAY_DIVERGE = frozenset({"loss", "accuracy", "val_loss", "val_accuracy"})
"""Fields of an EpochRecord that may be infinite or NaN, or any number."""

AnyRecord = TypeVar("AnyRecord", bound=BaseModel)


def read_record(model: type[AnyRecord], store: Store, key: str) -> AnyRecord | None:
    """A record, or None if there is no such object.

    Raises:
        UserError: it is damaged.
    """
    content = _get(store, key, LARGEST_RECORD)
    return None if content is None else _parse(model, content, store, key)


def read_epochs(store: Store, key: str) -> tuple[EpochRecord, ...]:
    """The epochs in order. A resume trains some again; then the last record of an epoch counts.

    Raises:
        UserError: a line is damaged.
    """
    history: list[EpochRecord] = []
    for number, line in enumerate((_get(store, key, LARGEST_RECORD) or b"").splitlines(), 1):
        record = _parse(EpochRecord, line, store, f"{key}, line {number}")
        while history and history[-1].epoch >= record.epoch:
            history.pop()
        history.append(record)
    return tuple(history)


def read_hangs(store: Store, key: str) -> tuple[HangRecord, ...]:
    """The hangs of a training, in order.

    Raises:
        UserError: a line is damaged.
    """
    lines = (_get(store, key, LARGEST_RECORD) or b"").splitlines()
    return tuple(
        _parse(HangRecord, line, store, f"{key}, line {number}")
        for number, line in enumerate(lines, 1)
    )


def read_predictions(store: Store, key: str, classes: int) -> Predictions | None:
    """The predictions of an experiment; None if there are none, or none of any image.

    Raises:
        UserError: they are damaged, or do not fit together or the number of classes.
    """
    content = _get(store, key, LARGEST)
    if content is None:
        return None
    try:
        arrays = read_arrays(content, LARGEST_ARRAYS, Predictions._fields)
        source, label, probabilities = arrays.values()
        # Of a damaged file the characters may be no characters.
        _ = source.astype(np.str_).tolist() if source.dtype.kind == "U" else None
    # The readers of zip and npy raise exceptions of a dozen kinds, MemoryError among them.
    except Exception as error:  # noqa: BLE001
        raise damaged(store, key, str(error) or type(error).__name__) from None
    images = label.size
    if (
        label.dtype.kind not in "iu"
        or label.shape != (images,)
        or source.dtype.kind != "U"
        or source.shape != (images,)
        or probabilities.dtype.kind != "f"
        or probabilities.shape != (images, classes)
    ):
        raise damaged(
            store,
            key,
            f"source {source.dtype}{source.shape}, label {label.dtype}{label.shape} and "
            f"probabilities {probabilities.dtype}{probabilities.shape} do not fit together and "
            f"{classes} classes",
        )
    if images == 0:
        return None
    if not 0 <= label.min() <= label.max() < classes:
        raise damaged(store, key, f"a label is not between 0 and {classes - 1}")
    return Predictions(source, label.astype(np.int64), probabilities)


class DamagedRecord(UserError):
    """A record that cannot be used."""


def damaged(store: Store, key: str, what: str) -> DamagedRecord:
    """The error for a record that cannot be used."""
    what = shorten(" ".join(what.split()), 200)
    return DamagedRecord(
        f"{store.url}/{key}: damaged record ({what}); restore the file, or run again under a new "
        "run name"
    )


def _get(store: Store, key: str, most: int) -> bytes | None:
    try:
        return store.get(key, most)
    except ObjectMissing:
        return None
    except ObjectTooLarge:
        raise damaged(store, key, f"it has more than {most:,} bytes") from None


def _parse(model: type[AnyRecord], content: bytes, store: Store, key: str) -> AnyRecord:
    try:
        record = model.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = shorten(".".join(str(part) for part in first["loc"]), 80)
        what = f"{where}: {first['msg']}" if where else first["msg"]
        raise damaged(store, key, what) from None
    for what in _implausible(record):
        raise damaged(store, key, what)
    return record


def _implausible(value: Any, where: str = "") -> Iterator[str]:
    """What in a record no run can have written, with the field that holds it."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            if not (isinstance(value, EpochRecord) and name in _MAY_DIVERGE):
                yield from _implausible(getattr(value, name), f"{where}.{name}".lstrip("."))
        if isinstance(value, EpochRecord) and value.epoch < 1:
            yield f"epoch: {value.epoch} is below 1"
        if isinstance(value, LayerRecord) and not (
            value.output_shape and all(0 < side < LARGEST_SIDE for side in value.output_shape)
        ):
            yield f"{where}.output_shape: {value.output_shape} is no shape"
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _implausible(inner, f"{where}.{shorten(str(name), 40)}".lstrip("."))
    elif isinstance(value, tuple):
        for position, inner in enumerate(value):
            yield from _implausible(inner, f"{where}.{position}")
    elif isinstance(value, int | float):
        limit = math.inf if where.rpartition(".")[2] in _RATES else LARGEST_NUMBER
        # False for NaN. The value may have thousands of digits: it is not shown.
        if not abs(value) < limit:
            yield f"{where}: not a number, or not below {limit:g}"
