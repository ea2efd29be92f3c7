"""An audit → `audit.json` and `audit.html` in a store."""

import functools
import sys
from collections.abc import Iterator

from tlcluster.audit.find import find_duplicates
from tlcluster.audit.page import render_page
from tlcluster.dataset.shards import read_index
from tlcluster.leakage import AUDIT, PAGE, TEST, Audit
from tlcluster.report.formats import listing, number, percent
from tlcluster.storage.patient import patient, told
from tlcluster.storage.protocol import Store
from tlcluster.terminal import one_line


def write_audit(
    store: Store, place: Store, bound: float, *, storage_wait: float = 0.0, show: bool = False
) -> Audit:
    """Audit a data set and write what was found; an earlier audit there is replaced.

    Args:
        store: holds the data set.
        place: where to; the store itself, or another one.
        bound: the largest distance of near duplicates.
        storage_wait: seconds to wait for a store that does not answer.
        show: show progress, and when storage is away, on standard error.

    Raises:
        UserError: the store holds no data set or a damaged one, or the place cannot be written.
        StoreUnavailable: storage does not answer.
    """
    say = functools.partial(print, file=sys.stderr, flush=True)
    on_wait = told(lambda line: say(one_line(line)) if show else None)
    store, place = (patient(one, storage_wait, on_wait=on_wait) for one in (store, place))
    index, sha256 = read_index(store)
    findings = find_duplicates(store, index, sha256, bound, show)
    place.put(PAGE, render_page(store, index, findings).encode())
    # Last: a run that finds it can rely on it.
    place.put(AUDIT, findings.audit.to_json())
    return findings.audit


def summary(audit: Audit) -> Iterator[str]:
    """What was found, in a few lines."""
    for name, found in audit.duplicates.items():
        overlaps = [one for one in audit.overlaps if one.split == name]
        images, exact = overlaps[0].images, sum(one.exact for one in found)
        others = listing(one.other for one in overlaps).replace(" and ", " or ")
        yield (
            f"{name}: {number(len(found))} of {number(images)} images "
            f"({percent(len(found) / images, 2)} %) are in {others} too: {number(exact)} with the "
            f"same pixels, {number(len(found) - exact)} nearly"
        )
    for name, count in audit.repeated.items():
        if count:
            yield f"{name}: {number(count)} images have the pixels of an earlier one in {name}"
    if TEST not in audit.duplicates:
        yield f"the data set {audit.dataset} has no {TEST} split beside another one"
