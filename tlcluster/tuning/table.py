"""What a person sees while a search runs: a live table, or lines.

One line when a trial starts, one when it ends, and at most one a minute in between.
"""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from tlcluster.experiments import Experiment, differences
from tlcluster.orchestration.display import duration, percent
from tlcluster.terminal import one_line, redraws, say
from tlcluster.tuning.records import TrialRecord
from tlcluster.tuning.trials import RECIPE_TRIAL, searched

Trials = Mapping[int, TrialRecord]

LINE_SECONDS = 60.0
"""Least time between two lines of a running trial. An epoch may take a second or an hour."""


class SearchTable:
    """Shows the searches of all experiments."""

    def __init__(self, console: Console, heading: str, wanted: int, finals: int) -> None:
        """
        Args:
            console: where to.
            heading: of the table.
            wanted: trials of each experiment.
            finals: trainings of finalists of each experiment, about.
        """
        self._console, self._heading = console, heading
        self._wanted, self._finals = wanted, finals
        self._began = time.monotonic()
        self._live = Live(console=console, refresh_per_second=4) if redraws(console) else None
        self._said: dict[tuple[str, int], float] = {}
        """Experiment and number of a trial → time of its last line."""

    def __enter__(self) -> "SearchTable":
        if self._live:
            self._live.start()
        else:
            say(self._console, self._heading)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(
        self,
        all_trials: Mapping[str, Trials],
        experiment: Experiment,
        now: TrialRecord | None,
    ) -> None:
        """Show all searches.

        Args:
            all_trials: experiment → its trials.
            experiment: whose trial has changed.
            now: that trial, or None.
        """
        if self._live:
            self._live.update(self._table(all_trials))
        elif now and self._is_due((experiment.name, now.number), running=now.status == "running"):
            trials = all_trials[experiment.name]
            best = max((one.best for one in trials.values() if one.best is not None), default=None)
            parts = [f"{experiment.name:12s} trial {now.number:3d}  {now.status:8s}"]
            if now.val_accuracy:
                parts += [
                    f"epoch {len(now.val_accuracy)}/{experiment.epochs}",
                    f"val. accuracy {percent(now.best)}",
                    f"best {percent(best)}",
                ]
            parts.append(words(experiment, now))
            if now.error:
                parts.append(one_line(now.error))
            say(self._console, "  ".join(parts))

    def _is_due(self, trial: tuple[str, int], *, running: bool) -> bool:
        now = time.monotonic()
        if running and now - self._said.get(trial, -LINE_SECONDS) < LINE_SECONDS:
            return False
        self._said[trial] = now
        return True

    def _table(self, all_trials: Mapping[str, Trials]) -> Table:
        result = Table(title=escape(self._heading), title_justify="left", title_style="bold")
        result.add_column("experiment")
        for column in ("trials", "running", "failed", "recipe", "best", "finals", "worker time"):
            result.add_column(column, justify="right")
        for name, trials in all_trials.items():
            search = [one for one in trials.values() if one.role != "finalist"]
            finals = [one for one in trials.values() if one.role == "finalist"]
            own = trials.get(RECIPE_TRIAL)
            result.add_row(
                f"[bold]{name}[/]",
                f"{searched(trials)}/{self._wanted}",
                str(sum(one.status == "running" for one in trials.values())),
                str(sum(one.status == "failed" for one in trials.values())),
                percent(own.best) if own else "",
                percent(max((one.best or 0.0 for one in search), default=None)),
                f"{sum(one.status != 'running' for one in finals)}/{self._finals}",
                duration(sum(one.worker_seconds for one in trials.values())),
            )
        result.caption = f"{duration(time.monotonic() - self._began)} so far"
        result.caption_justify = "left"
        return result


def words(experiment: Experiment, record: TrialRecord) -> str:
    """What a trial changes, in words."""
    if not record.fields:
        return "the profile's recipe"
    return ", ".join(differences(experiment.model_copy(update=record.fields), experiment)) or (
        "the profile's recipe"
    )
