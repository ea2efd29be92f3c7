"""Whether a run's report says what its records say: every number is computed again.

Needs neither TensorFlow nor Ray. Files that were changed since are found by their sha256: the
manifest holds that of each result, a result those of the predictions and the weights. Nothing is
signed, so a change of all of these together is not found.
"""

import csv
import difflib
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tlcluster import records
from tlcluster.leakage import AUDIT
from tlcluster.records import PAGE, ExperimentResult
from tlcluster.report.figures.draw import draw_figures
from tlcluster.report.formats import shorten
from tlcluster.report.page import render_page
from tlcluster.report.pictures import (
    Look,
    Pictures,
    kept_pictures,
    wrong_pictures,
)
from tlcluster.report.reading import DamagedRecord, read_predictions, read_record
from tlcluster.report.runs import read_run
from tlcluster.report.trained import Run
from tlcluster.report.write import tables
from tlcluster.storage.protocol import LARGEST, ObjectMissing, ObjectTooLarge, Store

Verdict = Literal["holds", "FAILS", "not checked"]

MOST_SHOWN = 5
"""Differences of one file that are named; the others are counted."""

_PICTURE = re.compile(r"<svg.*?</svg>|data:image/png;base64,[A-Za-z0-9+/=]*", re.DOTALL)


class Claim(NamedTuple):
    """Something that a run says, and whether it is so."""

    claim: str
    verdict: Verdict
    found: tuple[str, ...] = ()
    """What is different, or why it was not checked; a line each."""


class SplitImages(NamedTuple):
    """The test split of the data set that a run was trained on."""

    source: npt.NDArray[np.str_]
    """(n,) names of the images, in index order."""
    label: npt.NDArray[np.int64]
    """(n,)."""


def verify(
    store: Store, split: SplitImages | None = None, look: Look | None = None
) -> Iterator[Claim]:
    """Check a run, claim by claim.

    Args:
        store: the run's folder.
        split: with which the predictions' images and labels are compared.
        look: reads images of it, with which the pictures in the page are compared.

    Raises:
        UserError: there is no run, or a record is damaged.
    """
    run = read_run(store)
    for folder in run.manifest.folders:
        yield from _digests(store, run, folder)
    if known := run.manifest.audit_sha256:
        yield _same_bytes(store, AUDIT, known, "the manifest", run.manifest.status)
    yield _data_set(run, store, split)
    for name, content in tables(run).items():
        yield _table(store, f"{records.REPORT}/{name}", content)
    figures = draw_figures(run)
    for figure in figures.values():
        yield _picture(store, f"{records.REPORT}/{figure.name}.svg", figure.svg)
    pictures = kept_pictures(store, "", run)
    if pictures.png:
        yield _pixels(pictures, look)
    yield _page(store, render_page(run, figures, pictures))


def _digests(store: Store, run: Run, folder: str) -> Iterator[Claim]:
    """Whether the files of one seed of an experiment are those that its training wrote."""
    key = f"{folder}/{records.RESULT}"
    known = run.manifest.results_sha256.get(folder)
    try:
        result = read_record(ExperimentResult, store, key)
    except DamagedRecord:
        # Only of another seed than the first, without which there is no run.
        result = ExperimentResult(status="failed")
    status = result.status if result else "queued"
    yield _same_bytes(store, key, known, "the manifest", status)
    if result is None or result.status != "finished":
        return
    for file in (records.PREDICTIONS, records.WEIGHTS):
        digest = result.sha256.get(file)
        yield _same_bytes(store, f"{folder}/{file}", digest, key, "finished")


def _same_bytes(store: Store, key: str, known: str | None, by: str, status: str) -> Claim:
    claim = f"{key} is what the run wrote"
    if known is None:
        ended = status not in ("queued", "running")
        why = "an earlier version wrote no hash" if ended else "the experiment has not ended"
        return Claim(claim, "not checked", (f"{by} has no hash of it: {why}",))
    digest = _sha256(store, key)
    if digest == known:
        return Claim(claim, "holds")
    found = f"its sha256 is {digest}" if digest else "it is missing"
    return Claim(claim, "FAILS", (f"{found}, {by} says {known}",))


def _sha256(store: Store, key: str) -> str | None:
    content = _content(store, key)
    return None if content is None else hashlib.sha256(content).hexdigest()


def _data_set(run: Run, store: Store, split: SplitImages | None) -> Claim:
    """Whether the predictions are for the test images of the data set, each with its label."""
    claim = "the predictions are for the test images of the data set"
    if split is None:
        where = shorten(run.manifest.dataset.store, 200)
        return Claim(claim, "not checked", (f"give the data set, {where}, with --store",))
    wrong = []
    for folder in run.manifest.folders:
        key = f"{folder}/{records.PREDICTIONS}"
        try:
            predicted = read_predictions(store, key, len(run.manifest.dataset.classes))
        except DamagedRecord:
            wrong.append(f"{key}: damaged")
            continue
        if predicted is not None and not (
            np.array_equal(predicted.source, split.source)
            and np.array_equal(predicted.label, split.label)
        ):
            wrong.append(f"{key}: other images or labels than the test split")
    return Claim(claim, "FAILS" if wrong else "holds", tuple(wrong))


def _table(store: Store, key: str, ours: str) -> Claim:
    """Whether a table of the report has the numbers that follow from the records."""
    kinds = {"json": _of_json, "csv": _of_csv}
    differences = kinds.get(key.rpartition(".")[2], _of_lines)
    return _same_text(store, key, f"{key} has the numbers of the records", ours, differences)


def _pixels(pictures: Pictures, look: Look | None) -> Claim:
    """Whether the pictures in the page are the data set's."""
    claim = f"{records.PICTURES} has images of the data set"
    if look is None:
        return Claim(claim, "not checked", ("give the data set with --store",))
    found = list(wrong_pictures(pictures, look))
    return Claim(claim, "FAILS" if found else "holds", _few(found))


def _page(store: Store, ours: str) -> Claim:
    """Whether the page says what follows from the records, in its pictures too."""
    return _same_text(store, PAGE, f"{PAGE} says what the records say", ours, _of_lines)


def _same_text(
    store: Store,
    key: str,
    claim: str,
    ours: str,
    differences: Callable[[str, str], Iterator[str]],
) -> Claim:
    """Whether a file of the report is the one that the records give.

    Args:
        ours: its content as the records give it.
        differences: names those of two contents, the stored one first.
    """
    stored = _text(store, key)
    if stored is None:
        return Claim(claim, "FAILS", ("it is missing or no text",))
    if stored == ours:
        return Claim(claim, "holds")
    try:
        found = list(differences(stored, ours))
    except ValueError as error:
        found = [f"it cannot be read: {shorten(' '.join(str(error).split()), 200)}"]
    return Claim(claim, "FAILS", _few(found or ["its layout is not ours"]))


def _of_json(stored: str, ours: str) -> Iterator[str]:
    yield from _of_values(json.loads(stored), json.loads(ours), "")


def _of_csv(stored: str, ours: str) -> Iterator[str]:
    records_say, it_says = (list(csv.reader(io.StringIO(text))) for text in (ours, stored))
    if len(records_say) != len(it_says):
        yield f"{len(it_says)} lines instead of {len(records_say)}"
    for here, there in zip(records_say, it_says, strict=False):
        for column, a, b in zip(records_say[0], here, there, strict=False):
            if a != b:
                yield f"{here[0]}, {column}: {_shown(b)}, the records say {_shown(a)}"


def _of_lines(stored: str, ours: str) -> Iterator[str]:
    """Of two pages, without their figures and pictures."""
    it_says, records_say = (_PICTURE.sub("", page) for page in (stored, ours))
    if it_says == records_say:
        yield "a figure or picture in it is another than the records give"
    for line in difflib.ndiff(it_says.splitlines(), records_say.splitlines()):
        if line[:2] in ("- ", "+ "):
            who = "it says" if line[0] == "-" else "the records say"
            yield f"{who} {_shown(' '.join(line[2:].split()))}"


def _of_values(stored: Any, ours: Any, where: str) -> Iterator[str]:
    """Where two JSON values differ, with the path to it."""
    if isinstance(stored, dict) and isinstance(ours, dict):
        for key in {**ours, **stored}:
            yield from _of_values(
                stored.get(key, _MISSING), ours.get(key, _MISSING), f"{where}.{key}".lstrip(".")
            )
    elif isinstance(stored, list) and isinstance(ours, list) and len(stored) == len(ours):
        for position, (a, b) in enumerate(zip(stored, ours, strict=True)):
            yield from _of_values(a, b, f"{where}[{_name(b, position)}]")
    elif stored != ours or type(stored) is not type(ours):
        yield f"{shorten(where, 200)}: {_shown(stored)}, the records say {_shown(ours)}"


_MISSING = "(missing)"


def _name(value: Any, position: int) -> object:
    """How a reader knows an entry of a list: its name, or its place."""
    named = value.get("name", value.get("class")) if isinstance(value, Mapping) else None
    return position if named is None else named


def _shown(value: object) -> str:
    return shorten(str(value), 80)


def _picture(store: Store, key: str, ours: bytes) -> Claim:
    stored = _content(store, key)
    if stored == ours:
        return Claim(f"{key} is drawn from the records", "holds")
    why = "it is missing" if stored is None else "this version draws another picture of them"
    return Claim(f"{key} is drawn from the records", "FAILS", (why,))


def _text(store: Store, key: str) -> str | None:
    try:
        return (_content(store, key) or b"").decode() or None
    except UnicodeDecodeError:
        return None


def _content(store: Store, key: str) -> bytes | None:
    try:
        return store.get(key, LARGEST)
    except (ObjectMissing, ObjectTooLarge):
        return None


def _few(found: list[str]) -> tuple[str, ...]:
    more = len(found) - MOST_SHOWN
    return (*found[:MOST_SHOWN], *([f"and {more} more"] if more > 0 else []))
