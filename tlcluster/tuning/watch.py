"""What the driver of a search does while trials run: records, the table, the budget."""

import time
from collections.abc import Callable
from typing import Any

from ray import tune

from tlcluster.orchestration.attempt import LONGEST_REASON
from tlcluster.tuning.ray_tune import EPOCH, REFUSED, NotSaved
from tlcluster.tuning.records import Planned, TrialRecord
from tlcluster.tuning.space import Value


class Watch(NotSaved, tune.Callback):
    """Keeps the records of an experiment's trials up to date, here and in storage."""

    def __init__(
        self,
        records: dict[int, TrialRecord],
        write: Callable[[TrialRecord], None],
        changed: Callable[[TrialRecord | None], None],
        *,
        workers: int,
        gpus: float,
    ) -> None:
        """
        Args:
            records: number → record; changed as trials go on.
            write: stores a record; called when a trial starts and ends.
            changed: called when a trial starts, gets on or ends, and with None now and then.
            workers: of a trial.
            gpus: of each worker.
        """
        self._records, self._write, self._changed = records, write, changed
        self._workers, self._gpus = workers, gpus
        self._shown = 0.0

    def more(self, fields: dict[str, Value], seed: int) -> Planned:
        """Plan another trial of the search."""
        number = max(self._records, default=-1) + 1
        planned = Planned(number, "search", number, seed, dict(fields))
        self.begin(planned)
        return planned

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **_: Any) -> None:
        if EPOCH not in result:
            return
        seconds = result["seconds"] * self._workers
        self._update(
            trial,
            val_accuracy=tuple(result["val_accuracy"]),
            best_epoch=result["best_epoch"],
            worker_seconds=seconds,
            gpu_seconds=seconds * self._gpus,
        )

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:
        last = trial.last_result or {}
        if REFUSED in last:
            self._update(trial, status="failed", error=last[REFUSED][:LONGEST_REASON], write=True)
            return
        over = bool(last.get("over"))
        self._update(trial, status="finished" if over else "stopped", write=True)

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:
        # Tune restarts a trial whose process died; then it is told of the last failure only.
        self._update(trial, status="failed", error=_reason(trial), write=True)

    def on_step_end(self, **_: Any) -> None:
        if time.monotonic() - self._shown > 0.5:
            self._shown = time.monotonic()
            self._changed(None)

    def begin(self, planned: Planned) -> None:
        """Record that a trial begins, unless it is known."""
        if planned.number not in self._records:
            record = TrialRecord(**planned._asdict(), status="running")
            self._records[planned.number] = record
            self._write(record)
            self._changed(record)

    def stop_running(self) -> None:
        """Record the trials that still run as stopped, after a budget has ended them."""
        for number, record in self._records.items():
            if record.status == "running":
                self._keep(number, record.model_copy(update={"status": "stopped"}), write=True)

    def _update(self, trial: Any, *, write: bool = False, **fields: Any) -> None:
        number = trial.config["number"]
        self._keep(number, self._records[number].model_copy(update=fields), write=write)

    def _keep(self, number: int, record: TrialRecord, *, write: bool) -> None:
        self._records[number] = record
        if write:
            self._write(record)
        self._changed(record)


class Spent(NotSaved, tune.Stopper):
    """Ends a search when its trials have used up their worker-hours."""

    def __init__(self, seconds: float | None, spent: Callable[[], float]) -> None:
        self._seconds, self._spent = seconds, spent

    def __call__(self, *_: object) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._seconds is not None and self._spent() >= self._seconds


def _reason(trial: Any) -> str:
    """What went wrong, in one line. Tune keeps only the text of an exception, or the exception."""
    error = trial.get_pickled_error() or trial.get_error()
    cause = getattr(error, "cause", None) or error
    text = " ".join(str(cause).split())
    return (f"{type(cause).__name__}: {text}" if text else type(cause).__name__)[:LONGEST_REASON]
