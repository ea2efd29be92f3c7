"""A run with two seeds that trains, and a tracker that remembers what it is sent."""

import time
from collections.abc import Callable
from pathlib import Path

from fake_run import epoch_records as epochs
from fake_run import (
    experiment_result,
    manifest,
    write_config,
    write_epochs,
    write_replicate,
    write_result,
    write_run,
)

from tlcluster.records import RunManifest
from tlcluster.storage.directory import DirectoryStore
from tlcluster.tracking.entry import Entry, whole
from tlcluster.tracking.view import View

LONG = 60.0
"""Seconds after which a test gives up."""

SETTINGS = {
    "profile": "paper",
    "seed": 524,
    "views": None,
    "threads": 8,
    "frozen.base": "vgg16",
    "frozen.learning_rate": 1e-3,
    "augmented.base": "vgg16",
    "augmented.learning_rate": 1e-4,
}
DATASET = manifest().dataset.model_copy(update={"splits": {"train": 90, "valid": 90, "test": 200}})


def some(**changes: object) -> RunManifest:
    values = {
        "status": "running",
        "settings": SETTINGS,
        "seeds": (524, 7),
        "experiments": ("frozen", "augmented"),
        "dataset": DATASET,
        **changes,
    }
    return manifest(**values)


def half_trained(folder: Path) -> DirectoryStore:
    """A run of two experiments with two seeds: one finished, one trains, two are queued."""
    store = DirectoryStore(folder)
    write_run(store, some(), finished=[])
    write_replicate(store, some(), "frozen", 524)
    write_config(store, "augmented")
    write_epochs(store, "augmented", epochs("augmented", 2))
    write_result(store, "augmented", experiment_result("augmented", status="running"))
    return store


def by_name(store: DirectoryStore, *keys: str, last: bool = False) -> dict[str, Entry]:
    view = View(store, frozenset(keys) if keys else None)
    return {entry.name: entry for entry in view.entries(last=last)}


class FakeSink:
    """Remembers what it is sent; fails for the names that it is told."""

    place = "the place"

    def __init__(self, *failing: str) -> None:
        self.failing, self.sent, self.reports = set(failing), list[str](), list[list[str]]()

    def send(self, entry: Entry) -> None:
        if entry.name in self.failing:
            raise RuntimeError(f"{entry.name} is refused by https://user:secret@host")
        self.sent.append(entry.name)

    def send_report(self, entry: Entry, folder: Path) -> None:
        assert entry.parent is None
        self.reports.append(sorted(path.name for path in folder.iterdir()))


def an_entry(name: str, **changes: object) -> Entry:
    run = whole(some())
    parent = None if name == "run" else run.id
    return run._replace(id=name, name=name, parent=parent, **changes)  # type: ignore[arg-type]


ENTRIES = [an_entry(name) for name in ("run", "a", "b", "c")]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
