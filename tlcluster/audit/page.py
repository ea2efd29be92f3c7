"""The page of an audit: how many images two splits share, and pairs to look at."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from tlcluster.audit.find import Findings, nearest_of_all
from tlcluster.audit.pictures import Bar, histogram, png
from tlcluster.audit.scan import pixels
from tlcluster.cinic10 import ORIGINS
from tlcluster.dataset.shards import Index
from tlcluster.leakage import TEST, Audit
from tlcluster.report.figures.style import COLOURS
from tlcluster.report.formats import listing, number, percent, shorten
from tlcluster.report.page import page_environment
from tlcluster.storage.protocol import Store

SHOWN = 16
"""Pairs of each kind."""
BAR = 0.02
"""Width of the histogram's bars; distances above `LAST` are not shown."""
LAST = 1.0


class Side(NamedTuple):
    """One image of a pair."""

    picture: str
    """Address of its PNG."""
    split: str
    name: str
    label: str
    """Name of its class."""


class Pair(NamedTuple):
    """Two images side by side."""

    left: Side
    right: Side
    distance: float


class Kind(NamedTuple):
    """Pairs that the page shows together."""

    title: str
    about: str
    pairs: tuple[Pair, ...]


class Place(NamedTuple):
    """An image with its nearest partner."""

    split: str
    row: int
    other: str
    partner: int
    distance: float
    exact: bool


def render_page(store: Store, index: Index, findings: Findings) -> str:
    """The page: one file that refers to nothing outside itself, all text escaped.

    Args:
        store: holds the data set, of which the pictures are read.
        index: of it.
        findings: what the audit found.

    Raises:
        UserError, StoreUnavailable: the store cannot be read.
    """
    environment = page_environment("tlcluster.audit", "tlcluster.report")
    environment.filters.update(percent=percent, number=number, listing=listing, shorten=shorten)
    audit = findings.audit
    places = _places(findings)
    chosen = {title: (about, of) for title, about, of in _kinds(places, audit.method.bound)}
    sides = _sides(store, index, findings, [place for _, of in chosen.values() for place in of])
    kinds = [
        Kind(
            title,
            about,
            tuple(
                Pair(
                    sides[place.split, place.row], sides[place.other, place.partner], place.distance
                )
                for place in of
            ),
        )
        for title, (about, of) in chosen.items()
    ]
    bars: tuple[Bar, ...] = histogram(np.array([one.distance for one in places]), BAR, LAST)
    return environment.get_template("audit.html").render(
        audit=audit,
        index=index,
        breakdowns=_breakdowns(audit, index.classes),
        kinds=kinds,
        bars=bars,
        bar=BAR,
        last=LAST,
        test=TEST,
        colours=COLOURS,
    )


def _breakdowns(audit: Audit, classes: Sequence[str]) -> dict[str, dict[str, tuple[int, ...]]]:
    """What the duplicates are counted by → name → their number in each of the audit's overlaps."""
    by_class = [one.by_class for one in audit.overlaps]
    by_origin = [one.by_origin for one in audit.overlaps]
    return {
        heading: {
            name: tuple(counts.get(name, 0) for counts in of)
            for name in names
            if any(name in counts for counts in of)
        }
        for heading, names, of in (("Class", classes, by_class), ("Origin", ORIGINS, by_origin))
    }


def _places(findings: Findings) -> list[Place]:
    """The images of the test split (else of what there is) that have a candidate, by distance."""
    split = TEST if TEST in findings.audit.duplicates else next(iter(findings.audit.duplicates), "")
    of = [one for one in findings.nearest if one.split == split]
    found = [
        Place(
            split, row, one.other, int(one.partner[row]), float(one.distance[row]),
            bool(one.exact[row]),
        )
        for row, one in (nearest_of_all(of) if of else ())
        if one.partner[row] >= 0
    ]  # fmt: skip
    return sorted(found, key=lambda place: (place.distance, place.row))


def _kinds(places: Sequence[Place], bound: float) -> Iterable[tuple[str, str, Sequence[Place]]]:
    """Titles, explanations and pairs; `places` are ordered by distance."""
    exact = [one for one in places if one.exact]
    near = [one for one in places if not one.exact and one.distance <= bound]
    beyond = [one for one in places if one.distance > bound]
    yield "Same pixels", "Exact duplicates, by sha256.", exact[:SHOWN]
    yield "Surest near duplicates", "Those of the smallest distance.", near[:SHOWN]
    middle = near[:: max(1, len(near) // SHOWN)][:SHOWN]
    yield "Across all near duplicates", "Evenly spread over their order.", middle
    yield "Just within the bound", "The least sure ones that count.", near[-SHOWN:]
    yield "Just beyond the bound", "These do not count.", beyond[:SHOWN]


def _sides(
    store: Store, index: Index, findings: Findings, places: Iterable[Place]
) -> dict[tuple[str, int], Side]:
    """(split, row) → what is shown of that image."""
    needed: dict[str, set[int]] = {}
    for place in places:
        needed.setdefault(place.split, set()).add(place.row)
        needed.setdefault(place.other, set()).add(place.partner)
    found = {}
    for name, of in needed.items():
        split, rows = findings.splits[name], np.array(sorted(of))
        images = pixels(store, index, name, rows, lambda images: images, lambda _: None)
        for row, image in zip(rows.tolist(), images, strict=True):
            label = index.classes[split.labels[row]]
            found[name, row] = Side(png(image), name, split.sources[row], label)
    return found
