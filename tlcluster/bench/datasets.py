"""Images for a benchmark: a folder of PNG files, as in CINIC-10, and a store with the same."""

import hashlib
import io
import shutil
from pathlib import Path
from typing import NamedTuple

import PIL.Image

from tlcluster.cinic10 import SPLITS
from tlcluster.dataset.ingest import ingest
from tlcluster.dataset.sample import sample
from tlcluster.dataset.shards import read_index
from tlcluster.dataset.sources import open_source
from tlcluster.dataset.stage import DEFAULT_ROWS
from tlcluster.errors import UserError
from tlcluster.paths import SHARED
from tlcluster.storage.open import open_store

ROWS_PER_SHARD = DEFAULT_ROWS
"""The default of the command `ingest` for images of 32×32."""

BESIDE = SHARED / "data" / "cinic10-cifar-part.tar.xz"
"""Real images in a shared folder beside the checkout."""

_DONE = "done"

PNG_BEGIN = b"\x89PNG"


class Images(NamedTuple):
    """One data set in both forms."""

    folder: Path
    """`<split>/<class>/<name>.png`, the input of the peers."""
    store: Path
    """The same as shards."""
    rows: dict[str, int]
    """Split → images."""

    @property
    def total(self) -> int:
        return sum(self.rows.values())


def chosen_source(data: str | None) -> tuple[str, str]:
    """The images to measure on, and what they are in words: `data`, or else the best that is here.

    Raises:
        UserError: there is no such file or folder.
    """
    if data is not None:
        _size(Path(data))
        return data, data
    if BESIDE.is_file():
        return str(BESIDE), f"../shared/data/{BESIDE.name}"
    return sample(), "the sample that the package ships"


def prepared(source: str, work: Path, per_class: int | None = None) -> Images:
    """The images of a source, prepared the first time and found again later.

    Args:
        source: a folder or an archive, as the command `ingest` takes it.
        work: folder to make them in.
        per_class: at most so many images a class and split, the first by name; None takes all.

    Raises:
        UserError: the source cannot be used, or has fewer images of a class than asked for.
    """
    identity = f"{Path(source).resolve()} {_size(Path(source))} {per_class}"
    place = work / f"images-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    folder, store = place / "png", place / "store"
    if not (place / _DONE).exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        _unpack(source, place / "scratch", folder, per_class)
        ingest(str(folder), open_store(str(store), create=True), rows_per_shard=ROWS_PER_SHARD)
        (place / _DONE).touch()
    index, _ = read_index(open_store(str(store)))
    return Images(folder, store, {split: index.rows(split) for split in SPLITS})


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise UserError(
            f"--data {path}: {(error.strerror or '').lower()}; give a folder or an archive of "
            "CINIC-10"
        ) from None


def _unpack(source: str, scratch: Path, folder: Path, per_class: int | None) -> None:
    scratch.mkdir()
    opened = open_source(source, scratch, scratch, show=False)
    for split, images in opened.images.items():
        for label, name in enumerate(opened.classes):
            (folder / split / name).mkdir(parents=True)
            of_class = sorted((i for i in images if i.label == label), key=lambda image: image.name)
            for image in of_class[:per_class]:
                path = (folder / split / name / image.name).with_suffix(".png")
                path.write_bytes(_as_png(opened.read(image)))
    shutil.rmtree(scratch)


def _as_png(data: bytes) -> bytes:
    """An image file as a PNG file; a PNG file stays as it is."""
    if data.startswith(PNG_BEGIN):
        return data
    buffer = io.BytesIO()
    PIL.Image.open(io.BytesIO(data)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()
