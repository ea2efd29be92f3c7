"""What a user names on the command line → the runs there, each once."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tlcluster.errors import UserError
from tlcluster.paths import expanded
from tlcluster.records import MANIFEST
from tlcluster.report.formats import shorten
from tlcluster.report.runs import open_run
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import ObjectMissing, Store


class Place(NamedTuple):
    """Where a run is."""

    shown: str
    """As the user would type it."""
    store: Store
    prefix: str
    """What the run's keys begin with."""
    argument: int
    """The position of the argument that named it, or its folder."""
    named: bool
    """Whether it was named itself, and not only a folder that holds it."""

    @property
    def url(self) -> str:
        """Equal for the same run, however it was named."""
        return f"{self.store.url}/{self.prefix}".rstrip("/")


def places(given: Sequence[str]) -> list[Place]:
    """The runs in the given folders and addresses, in their order; in a folder by name.

    Raises:
        UserError: there is no run at one of them, nor in its folders.
    """
    found: dict[str, Place] = {}
    for argument, url in enumerate(given):
        for place in _places(argument, url):
            known = found.setdefault(place.url, place)
            found[place.url] = known._replace(named=known.named or place.named)
    return list(found.values())


def _places(argument: int, url: str) -> Iterator[Place]:
    inside = _inside(url)
    if not inside:
        # Explains what is wrong if there is no run.
        yield Place(shorten(url, 300), open_run(url), "", argument, named=True)
        return
    store = open_store(url)
    for name in inside:
        shown = shorten(f"{url.rstrip('/')}/{name}", 300)
        yield Place(shown, store, f"{name}/", argument, named=False)


def _inside(url: str) -> list[str]:
    """The names of the folders that have a manifest; none if there is one at the address itself."""
    if ":" not in url.partition("/")[0]:
        # Listing a store reads all folders below; here these are checkpoints and features.
        with contextlib.suppress(OSError, ValueError):  # `open_run` explains them.
            folder = expanded(url).absolute()
            if not (folder / MANIFEST).exists():
                return sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}"))
        return []
    store = open_store(url)
    with contextlib.suppress(ObjectMissing):
        store.get(MANIFEST)
        return []
    names = [re.fullmatch(rf"([^/]+)/{MANIFEST}", one.key) for one in store.list()]
    found = [name[1] for name in names if name]
    if not found:
        raise UserError(
            f"{url}: no run here, and none in its folders: {MANIFEST} is missing; give the folder "
            "of one run, OUTPUT/RUN-NAME, or a folder of runs"
        )
    return found
