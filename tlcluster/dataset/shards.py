"""The shard and index format: the contents of a store.

A store holds `<split>/<number>-<hash>.npy` shards and one `index.json`, which is
written last: a store with an index is complete. A shard is an uncompressed
NumPy file with one record per row, read without pickle and without decoding:

    image   uint8 (height, width, 3)   RGB
    label   uint8 or uint16            position in the index's classes
    origin  uint8                      position in `tlcluster.cinic10.ORIGINS`
    source  bytes S<k>                 file name, UTF-8; k is the longest of the data set

A label is uint8 in data sets of up to 256 classes and little-endian uint16 in larger
ones. The index of a larger one says format 2, which versions that only know uint8 refuse.

Rows should be written in random order of class: training shuffles shards, and
rows within a range of shards (`tlcluster.dataset.order`), never the whole split.
"""

import hashlib
import io
import json
import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tlcluster.cinic10 import ORIGINS
from tlcluster.errors import UserError
from tlcluster.paths import typed
from tlcluster.storage.protocol import LARGEST_RECORD, ObjectMissing, Store

INDEX_KEY = "index.json"

FORMATS: Final = (1, 2)
"""Versions of the format that can be read. Format 2 is format 1 with labels of uint16."""

MAX_CLASSES = 1000

MAX_NAME_BYTES = 255
"""Longest file or folder name, as in the usual file systems."""

MAX_ROWS = 2**20
"""Most rows of a shard. A reader's memory grows with the largest shard."""

_SMALL_LABELS = 256
"""Most classes whose labels are uint8."""

_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+\.npy")
_SPLIT = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_SOURCE = re.compile(rb"\('source', '\|S(\d{1,4})'\)")
_HEAD = 1024
"""Bytes that hold the header of any shard."""

Side = Annotated[int, Field(gt=0, le=1024)]


def is_name(name: str) -> bool:
    """Whether a class or file may have this name: printable UTF-8 of at most 255 bytes.

    The two joiners that Persian and the scripts of India need are allowed too; Python counts
    them as not printable.
    """
    if not name.replace("\u200c", "").replace("\u200d", "").isprintable():
        return False
    return 0 < len(name.encode()) <= MAX_NAME_BYTES


def format_of(classes: int) -> Literal[1, 2]:
    """The format of a data set with this number of classes."""
    return 1 if classes <= _SMALL_LABELS else 2


class ShardInfo(BaseModel):
    """One shard of an index."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    rows: int = Field(gt=0, le=MAX_ROWS)
    bytes: int = Field(gt=0)
    """Size of the object."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the whole object, in lower-case hexadecimal."""

    @model_validator(mode="after")
    def _safe_key(self) -> Self:
        if not _KEY.fullmatch(self.key):
            raise ValueError(
                f"key '{self.key}' is not allowed; a key is `<split>/<name>.npy` "
                "of letters, digits, dots, dashes and underscores, no part begins with a dot"
            )
        return self


class Index(BaseModel):
    """What a store holds: `index.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1, 2] = 1
    dataset: str = Field(min_length=1, max_length=100, pattern=r"^[ -~]+$")
    classes: tuple[str, ...] = Field(min_length=1, max_length=MAX_CLASSES)
    """Label → name of the class: printable, in any script."""
    image_shape: tuple[Side, Side, Side]
    """Height, width, channels."""
    splits: dict[str, tuple[ShardInfo, ...]]
    """Split → its shards; their rows, in this order, are the split's samples 0, 1, 2, …"""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.format != format_of(len(self.classes)):
            raise ValueError(f"format {self.format} does not allow {len(self.classes)} classes")
        for name in self.classes:
            if not is_name(name):
                raise ValueError(f"the class {name[:40]!r} has a name that cannot be printed")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("a class is named twice")
        seen: set[str] = set()
        for split, shards in self.splits.items():
            if not _SPLIT.fullmatch(split):
                raise ValueError(f"split '{split}' is not allowed; use lower-case letters")
            if not shards:
                raise ValueError(f"split {split} has no shards")
            for shard in shards:
                if not shard.key.startswith(f"{split}/"):
                    raise ValueError(f"shard {shard.key} of split {split} lies outside {split}/")
                if shard.key in seen:
                    raise ValueError(f"shard {shard.key} is named twice")
                seen.add(shard.key)
        return self

    def shards(self, split: str) -> tuple[ShardInfo, ...]:
        """The shards of a split, in the order of its samples.

        Raises:
            UserError: the data set has no such split.
        """
        if split not in self.splits:
            raise UserError(
                f"the data set {self.dataset} has no split {split!r}; it has: "
                f"{', '.join(self.splits) or 'none'}; ingest one that has it into an empty place"
            )
        return self.splits[split]

    def rows(self, split: str) -> int:
        """Samples of a split."""
        return sum(shard.rows for shard in self.shards(split))

    def shard_rows(self, split: str) -> npt.NDArray[np.int64]:
        """Rows of each shard of a split, int64 (shards,)."""
        return np.array([shard.rows for shard in self.shards(split)], dtype=np.int64)

    def offsets(self, split: str) -> npt.NDArray[np.int64]:
        """Sample number of each shard's first row and, last, of the end; int64 (shards + 1,)."""
        return np.cumsum([0, *self.shard_rows(split)], dtype=np.int64)

    def to_json(self) -> bytes:
        """Canonical JSON: equal indexes give equal bytes."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, indent=1)
        return text.encode("ascii") + b"\n"

    @classmethod
    def from_json(cls, data: bytes, where: str = INDEX_KEY) -> Self:
        """Read what `to_json` wrote; `where` names it in messages.

        Raises:
            UserError: damaged, hostile or of another format.
        """
        try:
            return cls.model_validate_json(data, strict=True)
        except ValidationError as error:
            raise UserError(f"{where} cannot be used: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    """The first problem of an index in one printable line, and the way out."""
    first = error.errors()[0]
    if first["loc"] == ("format",) and first["type"] == "literal_error":
        return (
            f"its format is {ascii(first['input'])[:40]}, this version of tlcluster reads "
            f"{' and '.join(map(str, FORMATS))}; use the version that wrote it, or ingest again "
            "into an empty place"
        )
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    text = f"{place}: {message}" if place else message
    printable = text.encode("unicode_escape").decode("ascii")
    return f"{printable[:300]}; restore it, or ingest again into an empty place"


def index_sha256(data: bytes) -> str:
    """The identity of a data set: sha256 of its index's bytes as stored, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def read_index(store: Store) -> tuple[Index, str]:
    """The index of a store and its sha256.

    Raises:
        UserError: the store has none, or one that cannot be used.
    """
    try:
        data = store.get(INDEX_KEY, LARGEST_RECORD)
    except ObjectMissing:
        raise UserError(
            f"{store.url} has no {INDEX_KEY}, so no data set was ingested there completely; "
            f"run: {typed('ingest')} --source PATH --store {store.url}"
        ) from None
    return Index.from_json(data, where=f"{INDEX_KEY} of {store.url}"), index_sha256(data)


def check_complete(store: Store, index: Index) -> None:
    """Check that the store has every shard in its size. One listing per split; reads no shard.

    Raises:
        UserError: names the first shard, in index order, that is missing or of another size.
    """
    way_out = f"run: {typed('ingest')} --source PATH --store {store.url}"
    for split, shards in index.splits.items():
        found = {item.key: item.size for item in store.list(f"{split}/")}
        for shard in shards:
            if shard.key not in found:
                raise UserError(f"{store.url} lacks the shard {shard.key}; {way_out}")
            if found[shard.key] != shard.bytes:
                raise UserError(
                    f"{store.url} has {found[shard.key]} bytes of the shard {shard.key}, "
                    f"the index says {shard.bytes}; {way_out}"
                )


def row_dtype(
    source_bytes: int, image_shape: tuple[int, int, int], classes: int = _SMALL_LABELS
) -> np.dtype[np.void]:
    """The record of one row: `image`, `label`, `origin`, `source`; packed, image first.

    Args:
        source_bytes: length of the longest source name, in bytes, at least 1.
        image_shape: height, width, channels.
        classes: number of classes; above 256, labels are uint16.
    """
    return np.dtype(
        [
            ("image", "u1", image_shape),
            ("label", "u1" if classes <= _SMALL_LABELS else "<u2"),
            ("origin", "u1"),
            ("source", f"S{source_bytes}"),
        ]
    )


def encode(rows: npt.NDArray[np.void]) -> bytes:
    """Records (n,) of a `row_dtype` → the bytes of a shard; equal rows give equal bytes."""
    return _header(len(rows), rows.dtype) + rows.tobytes()


def _header(rows: int, dtype: np.dtype[np.void]) -> bytes:
    buffer = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": descr, "fortran_order": False, "shape": (rows,)}
    )
    return buffer.getvalue()


def open_shard(path: Path, info: ShardInfo, index: Index) -> npt.NDArray[np.void]:
    """Map a shard into memory, read-only: records (info.rows,) of `row_dtype`.

    The file closes when the last reference to the array and its views is gone.
    Every label and origin is checked. This also reads all pages into memory, so
    that the reader that follows does not wait for the disk.

    Raises:
        UserError: the file is not a shard, or not the one that the index describes.
    """

    def refuse(why: str) -> UserError:
        return UserError(
            f"shard {info.key} {why}; it is not what the index describes: "
            "ingest again into an empty place"
        )

    with path.open("rb") as file:
        head = file.read(_HEAD)
    # The header is compared with the one that we would write instead of parsed: NumPy's parser
    # raises many kinds of exceptions on damaged headers. The padding may change with NumPy.
    source = _SOURCE.search(head)
    dtype = row_dtype(int(source[1]) if source else 1, index.image_shape, len(index.classes))
    expected = _header(info.rows, dtype)
    begin = 10 + int.from_bytes(head[8:10], "little")
    if head[:8] != expected[:8] or head[10:begin].split() != expected[10:].split():
        raise refuse(
            f"is not a NumPy file of {info.rows} rows with images of {index.image_shape}: "
            f"it begins with {head[:200]!r}"
        )
    size, needed = path.stat().st_size, begin + info.rows * dtype.itemsize
    if size != needed:
        raise refuse(f"has {size} bytes, its rows take {needed}")

    rows = np.memmap(path, dtype, "r", begin, (info.rows,))
    for field, codes in (("label", len(index.classes)), ("origin", len(ORIGINS))):
        largest = int(rows[field].max())
        if largest >= codes:
            raise refuse(f"has the {field} {largest}, the largest allowed is {codes - 1}")
    return rows


def fetched_shard(store: Store, info: ShardInfo, index: Index) -> npt.NDArray[np.void]:
    """Fetch a shard, verify its sha256 and size, and map it; see `open_shard`.

    Raises:
        CorruptObject, ObjectMissing: the object is damaged or missing.
        StoreUnavailable: the store does not answer.
        UserError: the object is not the shard that the index describes.
    """
    path = store.fetch(info.key, sha256=info.sha256, size=info.bytes)
    return open_shard(path, info, index)
