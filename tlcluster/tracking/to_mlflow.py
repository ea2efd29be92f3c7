"""Entries → runs of an MLflow server: one for the run as a whole, and its replicates nested in it.

The server is the only memory: a run is found by a tag, and what it has is not logged again.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType

from tlcluster.tracking.entry import Entry, Value

EXPERIMENT = "tlcluster"
"""MLflow's experiment, unless MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID names another."""

ID_TAG = "tlcluster.id"
PARENT_TAG = "mlflow.parentRunId"

MOST_ITEMS = 100
"""Parameters in one request; a server refuses more."""
MOST_METRICS = 1000
MOST_VALUE = 500
"""Characters of a parameter that every server takes."""

EPOCH_METRIC = "val_accuracy"
"""The epochs that a run has of this metric it has of all: they are logged together."""

STATUS = {
    "queued": "SCHEDULED",
    "running": "RUNNING",
    "finished": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}


@dataclass
class _Known:
    """What the server has of an entry."""

    run_id: str
    status: str
    epochs: set[int]
    params: Mapping[str, str]
    tags: Mapping[str, str]
    scores: Mapping[str, float] = field(default_factory=dict)


class Sink:
    """One MLflow server, or another place that MLFLOW_TRACKING_URI names."""

    def __init__(self) -> None:
        self._client = MlflowClient()
        self._experiment = _experiment(self._client)
        self._known: dict[str, _Known] = {}
        self._run_ids: dict[str, str] = {}
        """Id of an entry → the id of MLflow's run."""
        self._whole = ""

    @property
    def place(self) -> str:
        uri = os.environ["MLFLOW_TRACKING_URI"].rstrip("/")
        if not uri.startswith("http"):
            return uri
        return f"{uri}/#/experiments/{self._experiment}/runs/{self._whole}"

    def send(self, entry: Entry) -> None:
        # After a failure nobody knows what the server has, so it is asked again. The run as a
        # whole is looked for each time: two drivers may have made it at the same time.
        known = self._known.pop(entry.id, None) if entry.parent else None
        known = known or self._found(entry)
        if entry.parent is None:
            self._moved(known.run_id)
        now = int(1000 * time.time())
        metrics = [
            Metric(name, value, now, epoch)
            for epoch, of in entry.epochs.items()
            if epoch not in known.epochs
            for name, value in of.items()
        ]
        metrics += [
            Metric(name, value, now, 0)
            for name, value in entry.scores.items()
            if not _same(known.scores.get(name), value)
        ]
        params, tags = _texts(entry.params), self._tags(entry)
        self._log(known.run_id, metrics, _new(tags, known.tags))
        status = STATUS[entry.status]
        if status != known.status:
            if entry.ended:
                self._client.set_terminated(known.run_id, status)
            else:
                self._client.update_run(known.run_id, status)
        # Last: a server refuses another value of a parameter than it has.
        for some in _parts(_new(params, known.params)):
            self._client.log_batch(known.run_id, params=[Param(*one) for one in some])
        self._known[entry.id] = _Known(
            known.run_id, status, {*entry.epochs, *known.epochs}, params, tags, entry.scores
        )

    def send_report(self, entry: Entry, folder: Path) -> None:
        self._client.log_artifacts(self._run_ids[entry.id], str(folder), "report")

    def _log(self, run_id: str, metrics: Iterable[Metric], tags: Mapping[str, str]) -> None:
        # Whole epochs in a request: `EPOCH_METRIC` then says which there are.
        by_epoch: dict[int, list[Metric]] = {}
        for metric in metrics:
            by_epoch.setdefault(metric.step, []).append(metric)
        for group in _together(by_epoch.values()):
            self._client.log_batch(run_id, metrics=group)
        for some in _parts(tags):
            self._client.log_batch(run_id, tags=[RunTag(*one) for one in some])

    def _found(self, entry: Entry) -> _Known:
        """The run of an entry, made if there is none."""
        runs = self._search(entry)
        if not runs:
            self._client.create_run(
                self._experiment,
                run_name=entry.name,
                tags={**self._tags(entry), ID_TAG: entry.id, "mlflow.source.name": "tlcluster"},
            )
            runs = self._search(entry)
        first, *others = runs
        for other in others:
            # Made at the same moment by another driver of this run, which finds the first, too.
            self._client.delete_run(other.info.run_id)
        run_id = self._run_ids[entry.id] = first.info.run_id
        history = self._client.get_metric_history(run_id, EPOCH_METRIC) if entry.parent else []
        data = first.data
        return _Known(
            run_id,
            first.info.status,
            {metric.step for metric in history},
            data.params,
            data.tags,
            data.metrics,
        )

    def _search(self, entry: Entry) -> list[Any]:
        runs = self._client.search_runs(
            [self._experiment],
            f"tags.`{ID_TAG}` = '{entry.id}'",
            run_view_type=ViewType.ACTIVE_ONLY,
        )
        return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))

    def _moved(self, run_id: str) -> None:
        """The run as a whole is another one than before: its replicates follow."""
        if self._whole and self._whole != run_id:
            for known in self._known.values():
                self._client.set_tag(known.run_id, PARENT_TAG, run_id)
                known.tags = {**known.tags, PARENT_TAG: run_id}
        self._whole = run_id

    def _tags(self, entry: Entry) -> dict[str, str]:
        tags = {f"tlcluster.{name}": value for name, value in entry.tags.items()}
        if entry.parent:
            tags[PARENT_TAG] = self._run_ids[entry.parent]
        return tags


def _experiment(client: MlflowClient) -> str:
    given = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if given:
        return given
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except Exception:  # another driver may have made it
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def _texts(values: Mapping[str, Value]) -> dict[str, str]:
    return {name: str(value)[:MOST_VALUE] for name, value in values.items()}


def _new(values: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if known.get(name) != value}


def _same(a: float | None, b: float) -> bool:
    # NaN is the same as NaN here.
    return a is not None and (a == b or (a != a and b != b))


def _parts(values: Mapping[str, str]) -> Iterator[list[tuple[str, str]]]:
    items = list(values.items())
    for start in range(0, len(items), MOST_ITEMS):
        yield items[start : start + MOST_ITEMS]


def _together(groups: Iterable[list[Metric]]) -> Iterator[list[Metric]]:
    """Groups joined as long as a request takes them."""
    batch: list[Metric] = []
    for group in groups:
        if batch and len(batch) + len(group) > MOST_METRICS:
            yield batch
            batch = []
        batch = [*batch, *group]
    if batch:
        yield batch
