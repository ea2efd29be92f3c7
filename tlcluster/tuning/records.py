"""What a search leaves behind.

A search is a folder (or an S3 prefix) with this content:

    tuning.json                      TuningManifest
    trials/<experiment>/<number>.json  one TrialRecord each
    tuned.toml                       the best recipes; `--profile` takes it
    report/                          a page with figures
"""

from typing import Literal, NamedTuple

from tlcluster.experiments import Experiment
from tlcluster.records import NodeRecord, Record

TUNING = "tuning.json"
TUNED = "tuned.toml"
TRIALS = "trials"

TrialStatus = Literal["running", "finished", "stopped", "failed"]
"""`stopped`: others were better at the same epoch, or the budget was spent."""

Role = Literal["recipe", "search", "finalist"]
"""`recipe` is the profile's own recipe; a `finalist` is one of the best, with a seed of its own."""


class Planned(NamedTuple):
    """A trial to be started; the fields mean what they mean in `TrialRecord`."""

    number: int
    role: Role
    candidate: int
    seed: int
    fields: dict[str, str | int | float | bool]


class TrialRecord(Record):
    """One training of the search. No test image was read for it."""

    number: int
    """Counts from 0, in the order of their start, per experiment."""
    role: Role
    candidate: int
    """The number of the trial whose recipe this is: a finalist's, else its own."""
    seed: int
    fields: dict[str, str | int | float | bool]
    """The fields of the recipe that were searched, with this trial's values."""
    status: TrialStatus
    error: str | None = None
    """One line; None unless `status` is `failed`."""
    val_accuracy: tuple[float, ...] = ()
    """After each epoch."""
    best_epoch: int | None = None
    """Counts from 1."""
    worker_seconds: float = 0.0
    """Workers × time, all attempts together; the last attempt's number of workers counts."""
    gpu_seconds: float = 0.0

    @property
    def best(self) -> float | None:
        """Best validation accuracy of all epochs."""
        return max(self.val_accuracy, default=None)


class SearchRecord(Record):
    """The search for one experiment."""

    experiment: Experiment
    """As the profile has it."""
    space: dict[str, str]
    """Field → its possible values, in words."""


class TuningManifest(Record):
    """One search: what it was asked for."""

    name: str
    command: str
    profile: str
    seed: int
    trials: int
    budget_hours: float | None
    finalists: int
    seeds: int
    workers: int
    """Of each trial, as the last command had it."""
    searches: tuple[SearchRecord, ...]
    index_sha256: str
    dataset: str
    rows: dict[str, int]
    """Images of the splits that were used."""
    weights: dict[str, str]
    """Base → where its weights were found, in words."""
    versions: dict[str, str]
    hardware: tuple[NodeRecord, ...]
    started: str
    """UTC, ISO 8601."""
    finished: str | None = None
