"""VGG16's ImageNet weights: where they are looked for, and that they are the right ones."""

import contextlib
import hashlib
import http.client
import os
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tlcluster.errors import UserError
from tlcluster.paths import SHARED, expanded
from tlcluster.records import WeightsRecord
from tlcluster.storage.protocol import ObjectMissing, Store

FILE_NAME = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
SHA256 = "806a9e7269dae217bc73bd92cbe15eca8cd5bbc61dae8d33072bbbce71785067"
URL = f"https://storage.googleapis.com/tensorflow/keras-applications/vgg16/{FILE_NAME}"
"""Where Keras downloads the file from."""

RANDOM = "none"
"""The value of `--weights` that asks for random weights."""

VARIABLE = "TLCLUSTER_WEIGHTS"


def find_weights(
    flag: str | None, store: Store | None, download: bool = True
) -> tuple[WeightsRecord, bytes | None]:
    """The weights' content, checked, from the first place that has the file.

    The places, in order: the flag, the environment variable, `../shared/weights`
    beside the checkout, the store (`weights/<file name>`), Keras' own cache, and
    Keras' download, which goes into that cache.

    Args:
        flag: the value of `--weights`: a file, `none`, or None.
        store: where the shards are, or None to leave it out.
        download: False only says that the file would be downloaded.

    Returns:
        The record for the manifest, and the HDF5 file's bytes; None for random weights.

    Raises:
        UserError: the named file is missing, a file has another checksum, or
            the file is nowhere and cannot be downloaded.
    """
    if flag == RANDOM:
        return WeightsRecord(kind="random", sha256=None, found="random, as asked for"), None
    for found, content in _candidates(flag, store, download):
        actual = hashlib.sha256(content).hexdigest()
        if actual != SHA256:
            raise UserError(
                f"weights {found}: sha256 is {actual}, expected {SHA256}; "
                f"replace the file by Keras' {FILE_NAME} or name another with --weights"
            )
        return WeightsRecord(kind="imagenet", sha256=actual, found=found), content
    if not download:
        return WeightsRecord(kind="imagenet", sha256=SHA256, found=f"to be downloaded, {URL}"), None
    raise UserError(
        f"VGG16's weights were not found and could not be downloaded from {URL}; "
        f"fetch the file elsewhere and name it with --weights FILE or {VARIABLE}, "
        f"or train from random weights with --weights {RANDOM}"
    )


def _candidates(
    flag: str | None, store: Store | None, download: bool
) -> Iterator[tuple[str, bytes]]:
    for origin, named in (("--weights", flag), (VARIABLE, os.environ.get(VARIABLE))):
        if named:
            yield named, _read_named(origin, expanded(named))
    beside = SHARED / "weights" / FILE_NAME
    if beside.is_file():
        yield f"../shared/weights/{FILE_NAME}", beside.read_bytes()
    if store is not None:
        with contextlib.suppress(ObjectMissing):
            yield f"{store.url}/weights/{FILE_NAME}", store.get(f"weights/{FILE_NAME}")
    cached = _keras_cache() / FILE_NAME
    if not cached.is_file():
        if not download:
            return
        try:
            _download(cached)
        except (OSError, http.client.HTTPException):
            return
    yield f"Keras' cache, {FILE_NAME}", cached.read_bytes()


def _read_named(origin: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{origin} {path}: {error.strerror}; give the file {FILE_NAME}, "
            f"leave it out to have the usual places searched, or say --weights {RANDOM}"
        ) from None


def _keras_cache() -> Path:
    return Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"


def _download(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with urllib.request.urlopen(URL, timeout=30) as response, partial.open("wb") as file:
            shutil.copyfileobj(response, file)
        # One cut short, or a network's login page, must not stay in the cache for the next run.
        if hashlib.sha256(partial.read_bytes()).hexdigest() != SHA256:
            raise OSError(f"{URL}: not the file that Keras publishes")
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)
