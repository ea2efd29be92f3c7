"""Runs → their comparison: `index.html`, `comparison.json` and `comparison.csv`."""

import contextlib
from collections.abc import Sequence

from tlcluster.comparison.gather import gather
from tlcluster.comparison.page import render_page
from tlcluster.comparison.places import places
from tlcluster.comparison.results import comparison
from tlcluster.comparison.rows import all_rows, comparison_csv
from tlcluster.errors import UserError
from tlcluster.report.tables import json_text
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import ObjectMissing, Store

INDEX = "index.html"
NUMBERS = "comparison.json"


def write_comparison(
    given: Sequence[str], to: str, command: str, *, any_images: bool = False
) -> str:
    """Compare runs. Nothing is written before all of it is there; the page is written last.

    Args:
        given: folders of runs, or folders that hold some.
        to: the folder for the comparison; an earlier one there is replaced.
        command: that asked for it.
        any_images: see `tlcluster.comparison.gather`.

    Returns:
        The address of the page.

    Raises:
        UserError: a run cannot be compared, or the folder cannot be used.
    """
    gathered = gather(places(given), any_images=any_images)
    files = {
        NUMBERS: json_text(comparison(gathered, command)),
        "comparison.csv": comparison_csv(all_rows(gathered)),
        INDEX: render_page(gathered, command),
    }
    target = open_store(to, create=True)
    _refuse_another_page(target, to)
    for name, text in files.items():
        target.put(name, text.encode())
    return f"{target.url}/{INDEX}"


def _refuse_another_page(target: Store, to: str) -> None:
    """A report's page has the same name."""
    there = {one for one in (INDEX, NUMBERS) if _exists(target, one)}
    if there == {INDEX}:
        raise UserError(
            f"--to {to}: has an {INDEX} that is no comparison's; name another folder, or a new one"
        )


def _exists(store: Store, key: str) -> bool:
    with contextlib.suppress(ObjectMissing):
        store.get(key)
        return True
    return False
