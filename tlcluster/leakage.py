"""What `audit.json` holds: images of one split that another split has too.

`tlcluster audit` writes it beside the index of a data set. A run takes a copy of it, so that its
report needs no data set.
"""

from typing import Literal

from pydantic import Field

from tlcluster.records import Record

AUDIT = "audit.json"
"""The key, in a store and in a run."""

PAGE = "audit.html"

TEST = "test"
COMPARED = ((TEST, "train"), (TEST, "valid"), ("valid", "train"))
"""Splits whose images are looked for, and where: no split may know the images that it judges."""


BOUND = 0.2
"""Distance; see `Method` and `docs/audit.md`."""


class Method(Record):
    """How near duplicates were found. Equal methods find the same ones."""

    name: Literal["dct-ncc"] = "dct-ncc"
    """Candidates by a cosine transform, then the correlation of their pixels."""
    version: int = 1
    """Raised if the same pixels get another distance."""
    bound: float
    """Two images of at most this distance are near duplicates."""
    shift: int
    """The largest shift that is tried, in pixels of images of 32 pixels a side."""
    candidates: int
    """Images of the other split that are compared by pixels, for each image at most."""
    similarity: float
    """The least similarity of the coefficients that makes a candidate."""


class Duplicate(Record):
    """An image, and the nearest of the images of other splits that show the same."""

    row: int = Field(ge=0)
    """In its split, in index order; the first is 0."""
    source: str
    """File name."""
    label: int = Field(ge=0)
    """Position of its class in the data set's classes."""
    partner_split: str
    partner_row: int = Field(ge=0)
    partner_source: str
    partner_label: int = Field(ge=0)
    distance: float = Field(ge=0, le=2)
    """1 − correlation of their details at the best shift, one of them mirrored if that is nearer.
    0 only for the same pixels."""
    exact: bool
    """Whether the pixels are the same."""


class Overlap(Record):
    """How many images of one split are in another one too."""

    split: str
    other: str
    """Where the images of `split` were looked for."""
    images: int
    """Of `split`."""
    exact: int
    """Those with the pixels of an image of `other`."""
    near: int
    """Those that are a near duplicate of one, without the exact ones."""
    other_class: int
    """Of both together, those whose nearest partner has another class."""
    by_class: dict[str, int]
    """Of both together, by the class in `split`; only classes that have any."""
    by_origin: dict[str, int]
    """The same by origin (`tlcluster.cinic10.ORIGINS`)."""


class Audit(Record):
    """What an audit of a data set found."""

    version: Literal[1] = 1
    """Of this format."""
    dataset: str
    index_sha256: str
    """Of the data set; an audit says nothing about another one."""
    method: Method
    overlaps: tuple[Overlap, ...]
    repeated: dict[str, int]
    """Split → its images whose pixels an earlier image of the same split has."""
    duplicates: dict[str, tuple[Duplicate, ...]]
    """Split → its images that an earlier split has too, in index order: those of `test` in `train`
    or `valid`, those of `valid` in `train`."""

    def to_json(self) -> bytes:
        """Equal audits give equal bytes."""
        return self.model_dump_json(indent=1).encode() + b"\n"
