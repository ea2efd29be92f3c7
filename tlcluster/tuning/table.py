"""What a person sees while a search runs: a live table, or one line for each trial that ends."""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from tlcluster.experiments import Experiment, differences
from tlcluster.orchestration.display import duration, percent
from tlcluster.terminal import one_line, printable, redraws
from tlcluster.tuning.records import TrialRecord
from tlcluster.tuning.trials import RECIPE_TRIAL, searched

Trials = Mapping[int, TrialRecord]


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

    def __enter__(self) -> "SearchTable":
        if self._live:
            self._live.start()
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
        elif now and now.status != "running":
            trials = all_trials[experiment.name]
            best = max((one.best or 0.0 for one in trials.values()), default=0.0)
            text = (
                f"{experiment.name:12s} trial {now.number:3d}  {now.status:8s}  epoch "
                f"{len(now.val_accuracy)}/{experiment.epochs}  val. accuracy {percent(now.best)}  "
                f"best {percent(best)}  {words(experiment, now)}"
            )
            error = f"  {one_line(now.error)}" if now.error else ""
            self._console.print(
                printable(text) + error, highlight=False, soft_wrap=True, markup=False
            )

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
