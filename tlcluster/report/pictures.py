"""The pictures in the page: read once from the data set, then kept with the run.

The store with the images may be gone when a report is written again: an embedded one ends with
its run. So the few pictures that a page shows are kept as PNG in the run's folder.
"""

import base64
import binascii
import io
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from tlcluster.errors import StoreUnavailable, UserError
from tlcluster.records import PICTURES, PictureRecord, PicturesRecord
from tlcluster.report.formats import shorten
from tlcluster.report.reading import DamagedRecord, read_record
from tlcluster.report.trained import Run
from tlcluster.storage.protocol import Store

LARGEST_SIDE = 64
"""Pixels. Larger pictures are made smaller, so that a hundred take two megabytes at most."""

LARGEST_PNG = 2**16
"""Bytes of one, as text."""

SECONDS = 60.0
"""Time to read the pictures of a page; the others are then left out."""

_PNG = b"\x89PNG\r\n\x1a\n"


Look = Callable[[Sequence[int]], Iterable[tuple[int, str, npt.NDArray[np.uint8]]]]
"""Numbers of test images → each with its name and pixels (height, width, 3), read one after
another, as `tlcluster.dataset.pixels.images_of` does. It may raise `UserError`,
`StoreUnavailable` or `OSError` on the way."""


class Pictures(NamedTuple):
    """What the page shows."""

    png: Mapping[int, str]
    """Number of an image → PNG in base64."""
    lacking: str | None
    """Why some are missing, in words; None if none is."""


NOT_READ = (
    "The pictures are not kept with this run; to see them, write the report again with --store and "
    "the address of the data set."
)
NONE = Pictures({}, NOT_READ)


def kept_pictures(store: Store, run_prefix: str, run: Run) -> Pictures:
    """The pictures that are kept with a run, as far as they belong to it and its page shows them.

    No `UserError`, whatever the file holds: a page without pictures is better than none.
    """
    try:
        kept = read_record(PicturesRecord, store, run_prefix + PICTURES)
    except DamagedRecord:
        return Pictures({}, f"{PICTURES} is damaged. {NOT_READ}")
    if kept is None:
        return NONE
    if kept.index_sha256 != run.manifest.dataset.index_sha256:
        return Pictures({}, f"{PICTURES} is of another data set. {NOT_READ}")
    wanted = run.gallery.sources
    png = {
        one.image: one.png
        for one in kept.pictures
        if wanted.get(one.image) == one.source and _is_png(one.png)
    }
    whole = png.keys() == wanted.keys()
    return Pictures(png, None if whole else shorten(kept.lacking or NOT_READ, 300))


def gathered_pictures(store: Store, run_prefix: str, run: Run, look: Look) -> Pictures:
    """The kept pictures, and those that are missing, read from the data set and kept from now on.

    Storage that does not answer, or that lacks images, makes a page with fewer pictures that says
    why; it is no error.
    """
    kept, wanted = kept_pictures(store, run_prefix, run), run.gallery.sources
    missing = [image for image in run.gallery.images if image not in kept.png]
    if not missing:
        return kept._replace(lacking=None)
    found, lacking = dict(kept.png), None
    end = time.monotonic() + SECONDS
    try:
        for number, source, image in look(missing):
            if wanted.get(number) == source and is_picture(image):
                found[number] = to_png(image)
            if time.monotonic() > end:
                break
    except (UserError, StoreUnavailable, OSError) as error:
        lacking = shorten(" ".join(str(error).split()), 200)
    gone = len(wanted.keys() - found.keys())
    if gone:
        why = lacking or f"the data set has others there, or needed more than {SECONDS:.0f} s"
        lacking = f"{gone} of {len(wanted)} pictures could not be read: {why}"
    else:
        lacking = None
    record = PicturesRecord(
        index_sha256=run.manifest.dataset.index_sha256,
        pictures=tuple(
            PictureRecord(image=image, source=wanted[image], png=found[image])
            for image in sorted(found)
        ),
        lacking=lacking,
    )
    store.put(run_prefix + PICTURES, record.model_dump_json(indent=1).encode())
    # Read back, so that the page is the same when it is written again.
    return kept_pictures(store, run_prefix, run)


def wrong_pictures(kept: Pictures, look: Look) -> Iterator[str]:
    """How the kept pictures differ from the images of the data set, one line each."""
    seen = set()
    for number, source, image in look(sorted(kept.png)):
        seen.add(number)
        pixels = from_png(kept.png[number])
        if pixels is None or not np.array_equal(pixels, smaller(image)):
            yield f"image {number} ({shorten(source, 60)}) is another one in the data set"
    if gone := len(kept.png.keys() - seen):
        yield f"the data set lacks {gone} of the images"


def is_picture(image: npt.NDArray[np.generic]) -> bool:
    """Whether an array is an RGB image of 8 bits."""
    return image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size > 0


def smaller(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """An image (height, width, 3) of at most `LARGEST_SIDE` pixels a side, as means of squares of
    pixels, without a rest at the right and below."""
    height, width, _ = image.shape
    side = -(-max(height, width) // LARGEST_SIDE)
    if side <= 1 or min(height, width) < side:
        return image[:LARGEST_SIDE, :LARGEST_SIDE]
    tall, wide = height // side, width // side
    squares = image[: tall * side, : wide * side].reshape(tall, side, wide, side, 3)
    sums = squares.sum(axis=(1, 3), dtype=np.int64)
    means: npt.NDArray[np.uint8] = ((sums + side * side // 2) // (side * side)).astype(np.uint8)
    return means


def to_png(image: npt.NDArray[np.uint8]) -> str:
    """PNG in base64 of an image (height, width, 3), made smaller if it is large."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(smaller(image))).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def from_png(png: str) -> npt.NDArray[np.uint8] | None:
    """The pixels (height, width, 3) of what `to_png` made; None if they cannot be read."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(png)), formats=["PNG"]) as image:
            if max(image.size) > LARGEST_SIDE or image.mode != "RGB":
                return None
            return np.asarray(image)
    # A damaged PNG raises one of many kinds of exceptions.
    except Exception:  # noqa: BLE001
        return None


def _is_png(text: str) -> bool:
    """Whether a text is base64 of something that begins as a PNG; a browser reads the rest."""
    if len(text) > LARGEST_PNG:
        return False
    try:
        return base64.b64decode(text, validate=True).startswith(_PNG)
    except (binascii.Error, ValueError):
        return False
