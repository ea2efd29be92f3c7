"""ImageNet weights of the backbones: where they are looked for, and how they are verified."""

import contextlib
import hashlib
import io
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import h5py

from tlcluster.backbones import BACKBONES, Backbone
from tlcluster.errors import UserError, from_os_error
from tlcluster.paths import SHARED, expanded
from tlcluster.plain_files import read_plain
from tlcluster.records import WeightsRecord
from tlcluster.storage.protocol import ObjectMissing, Store
from tlcluster.training import shipped_weights
from tlcluster.training.fetch import NotFetched, fetch
from tlcluster.training.hdf5_check import check_hdf5

RANDOM = "none"
"""The value of `--weights` that asks for random weights."""
SHIPPED = "shipped"
"""The value of `--weights` that asks for the 8-bit copy in the package."""

FLAG = "--weights"
VARIABLE = "TLCLUSTER_WEIGHTS"

RESAVED_SHA256: Mapping[str, str] = {
    "vgg16": "806a9e7269dae217bc73bd92cbe15eca8cd5bbc61dae8d33072bbbce71785067",
}
"""Backbone → sha256 of its published weights as today's Keras writes them: the same numbers in
another file."""

MOST_BYTES = 2**30
"""Larger files are not read; the largest one that Keras publishes has a third of it."""


class Weights(NamedTuple):
    """What the models of one backbone start from."""

    record: WeightsRecord
    content: bytes | None
    """An HDF5 file in Keras' layout; None for random weights, and in a dry run for weights that
    would be downloaded."""
    notice: str | None = None
    """One line that the terminal should show."""


class Given(NamedTuple):
    """A value that names weights."""

    origin: str
    """`--weights` or the name of the variable."""
    value: str


def find_weights(
    bases: Collection[str],
    named: Sequence[str] = (),
    store: Store | None = None,
    *,
    download: bool = True,
    fall_back: bool = True,
) -> dict[str, Weights]:
    """Backbone → its weights, verified, from the first place that has them.

    The places, in order: `named`, the variable TLCLUSTER_WEIGHTS, `../shared/weights`
    beside the checkout, the store (`weights/<file name>`), Keras' own cache,
    Keras' download (which goes into that cache), and the 8-bit copy of VGG16's
    weights in the package.

    Args:
        bases: names of the backbones of a run.
        named: the values of `--weights`. A file is for the backbone whose file it
            is, by checksum or name; a folder is searched for the published file
            names; `shipped` is the 8-bit copy; `none` means random weights for
            every backbone that no other value has weights for.
        store: where the shards are, or None to leave it out.
        download: False only says that the file would be downloaded.
        fall_back: False leaves out the 8-bit copy unless it is named.

    Raises:
        UserError: a value is missing, damaged or of no use for these backbones,
            a file has another checksum, or the weights of a backbone are found nowhere.
    """
    # `none` comes last: it is for the bases that no other value serves.
    flags = [Given(FLAG, value) for value in sorted(named, key=lambda value: value == RANDOM)]
    backbones = [BACKBONES[base] for base in bases]
    found: dict[str, Weights] = {}
    for one in flags:
        # Every flag is read for every backbone, so that a wrong one is always reported.
        answers = _answers(one, backbones)
        if not answers:
            raise UserError(_useless(one, backbones))
        found = answers | found
    preset = os.environ.get(VARIABLE)
    if preset and len(found) < len(backbones):
        found = _answers(Given(VARIABLE, preset), backbones) | found
    return {
        backbone.name: found.get(backbone.name) or _search(backbone, store, download, fall_back)
        for backbone in backbones
    }


def weights_name(base: str, record: WeightsRecord, seed: int) -> str:
    """What the weights of a backbone are called in the key of features."""
    if record.sha256 is not None:
        return record.sha256
    return f"random-{seed}" if base == "vgg16" else f"random-{base}-{seed}"


def published(backbone: Backbone, found: str, content: bytes) -> Weights:
    """A backbone's published weights file, verified.

    Raises:
        UserError: it is another file.
    """
    if backbone.weights_md5 is None:
        _check_opens(backbone, found, content)
        found += "; Keras publishes no checksum, so it is verified by loading it"
    elif not _is_published(backbone, content):
        raise UserError(
            f"weights {found}: md5 is {_md5(content)}, expected {backbone.weights_md5}; "
            f"replace the file by Keras' {backbone.weights_file} or name another with {FLAG}"
        )
    sha256 = hashlib.sha256(content).hexdigest()
    return Weights(WeightsRecord(kind="imagenet", sha256=sha256, found=found), content)


def read_named(given: Given) -> bytes:
    """The content of a file that the user named.

    Raises:
        UserError: it cannot be read.
        StoreUnavailable: its file system does not answer now.
    """
    path = expanded(given.value)
    way_out = (
        f"give a file that Keras publishes or a folder of such files, leave it out to have the "
        f"usual places searched, or say {FLAG} {RANDOM}"
    )
    try:
        return read_plain(path, MOST_BYTES)
    except OSError as error:
        raise from_os_error(error, f"{given.origin} {str(path)[:300]}", way_out) from None
    except ValueError as error:
        raise UserError(f"{given.origin} {str(path)[:300]}: {error}; {way_out}") from None


# Named weights


def _answers(given: Given, backbones: Sequence[Backbone]) -> dict[str, Weights]:
    """Backbone → its weights, for those that a value has weights for."""
    answers = {backbone.name: _answer(given, backbone, backbones) for backbone in backbones}
    return {name: answer for name, answer in answers.items() if answer is not None}


def _answer(given: Given, backbone: Backbone, backbones: Sequence[Backbone]) -> Weights | None:
    """The weights that a value names for a backbone, or None."""
    if given.value == RANDOM:
        record = WeightsRecord(kind="random", sha256=None, found="random, as asked for")
        return Weights(record, None)
    if given.value == SHIPPED:
        return _shipped("asked for") if backbone.name == shipped_weights.BASE else None
    path = expanded(given.value)
    with contextlib.suppress(OSError, ValueError):
        if path.is_dir():
            file = path / backbone.weights_file
            if not file.is_file():
                return None
            named = given._replace(value=str(file))
            return published(backbone, str(file), read_named(named))
    content = read_named(given)
    if _owner(given, path.name, content, backbones) != backbone:
        return None
    return published(backbone, given.value, content)


def _owner(given: Given, name: str, content: bytes, backbones: Sequence[Backbone]) -> Backbone:
    """The backbone whose file this is: by checksum, else by name."""
    for backbone in BACKBONES.values():
        if _is_published(backbone, content):
            return backbone
    for backbone in BACKBONES.values():
        if name == backbone.weights_file:
            return backbone
    expected = " or ".join(
        f"{backbone.weights_md5} ({backbone.title})"
        if backbone.weights_md5
        else f"the name {backbone.weights_file}"
        for backbone in backbones
    )
    raise UserError(
        f"weights {given.value}: md5 is {_md5(content)}, expected {expected}; "
        f"replace the file by the one that Keras publishes or name another with {FLAG}"
    )


def _useless(given: Given, backbones: Sequence[Backbone]) -> str:
    """The error for a value that no backbone of the run can use."""
    titles = ", ".join(backbone.title for backbone in backbones)
    files = ", ".join(backbone.weights_file for backbone in backbones)
    return (
        f"{given.origin} {given.value}: has no weights for this run's base ({titles}); "
        f"give {files} or a folder that holds it, or leave the flag out"
    )


# The usual places


def _search(backbone: Backbone, store: Store | None, download: bool, fall_back: bool) -> Weights:
    for found, content in _usual_places(backbone, store):
        return published(backbone, found, content)
    if not download:
        found = f"to be downloaded, {backbone.weights_url}"
        return Weights(WeightsRecord(kind="imagenet", sha256=None, found=found), None)
    try:
        weights = published(backbone, _cache_name(backbone), fetch(backbone.weights_url))
    except NotFetched as failure:
        reason = str(failure)
    except UserError:
        # A damaged file, or a network's login page. It must not stay for the next run.
        reason = "what was downloaded is not the file that Keras publishes"
    else:
        _keep(backbone, weights.content or b"")
        return weights
    problem = f"could not be downloaded from {backbone.weights_url} ({reason})"
    has_copy = backbone.name == shipped_weights.BASE
    if fall_back and has_copy:
        return _shipped(f"the published ones {problem}")
    other = (
        f"take the 8-bit copy that tlcluster ships with {FLAG} {SHIPPED}"
        if has_copy
        else f"train from random weights with {FLAG} {RANDOM}"
    )
    raise UserError(
        f"{backbone.title}'s weights were not found and {problem}; fetch the file elsewhere and "
        f"name it with {FLAG} FILE or {VARIABLE}, or {other}"
    )


def _usual_places(backbone: Backbone, store: Store | None) -> Iterator[tuple[str, bytes]]:
    name = backbone.weights_file
    beside = _read(SHARED / "weights" / name)
    if beside is not None:
        yield f"../shared/weights/{name}", beside
    if store is not None:
        with contextlib.suppress(ObjectMissing):
            yield f"{store.url}/weights/{name}", store.get(f"weights/{name}", MOST_BYTES)
    with contextlib.suppress(OSError):
        cached = _read(_keras_cache() / name)
        if cached is not None:
            yield _cache_name(backbone), cached


def _read(path: Path) -> bytes | None:
    """The content of a file, or None if there is no such file that we may read."""
    try:
        return read_plain(path, MOST_BYTES)
    except OSError:
        return None


def _shipped(why: str) -> Weights:
    title = BACKBONES[shipped_weights.BASE].title
    return Weights(
        WeightsRecord(
            kind="imagenet-8bit",
            sha256=shipped_weights.SHA256,
            found="the 8-bit copy that tlcluster ships",
        ),
        shipped_weights.shipped_weights(),
        f"weights: the 8-bit copy of {title}'s ImageNet weights that tlcluster ships; {why}. "
        f"Use the published file with {FLAG} FILE.",
    )


def _cache_name(backbone: Backbone) -> str:
    return f"Keras' cache, {backbone.weights_file}"


def _keras_cache() -> Path:
    """Where Keras keeps what it downloads.

    Raises:
        OSError: the account has no home.
    """
    try:
        return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"
    except RuntimeError as error:
        raise FileNotFoundError(str(error)) from None


def _keep(backbone: Backbone, content: bytes) -> None:
    """Put a download into Keras' cache, if that can be written."""
    with contextlib.suppress(OSError):
        target = _keras_cache() / backbone.weights_file
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{os.getpid()}.part")
        try:
            partial.write_bytes(content)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


# Verification


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _is_published(backbone: Backbone, content: bytes) -> bool:
    if backbone.weights_md5 is not None and _md5(content) == backbone.weights_md5:
        return True
    return hashlib.sha256(content).hexdigest() == RESAVED_SHA256.get(backbone.name)


def _check_opens(backbone: Backbone, found: str, content: bytes) -> None:
    """Raises UserError unless this is a weights file of Keras. Shapes are checked on loading."""
    try:
        check_hdf5(content)
        with h5py.File(io.BytesIO(content)) as file:
            names = list(file.attrs["layer_names"])
    except (OSError, KeyError, TypeError, ValueError, RuntimeError):
        names = []
    if not names:
        raise UserError(
            f"weights {found}: not a weights file of Keras; replace it by Keras' "
            f"{backbone.weights_file} or name another with {FLAG}"
        )
