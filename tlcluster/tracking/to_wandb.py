"""Entries → runs of Weights & Biases: one for each replicate, in a group named after the run.

A run's id is that of its entry, so a run that goes on is the same one. The library knows from the
server which epochs it has. Without the server (`WANDB_MODE=offline`) each start of a command
writes a folder of its own with all epochs, and `wandb sync` of a later one replaces the earlier.
"""

import os
from pathlib import Path
from typing import Any

import wandb

from tlcluster.tracking.entry import Entry

PROJECT = "tlcluster"
"""Unless WANDB_PROJECT names another."""

EXIT_STATUS = {"finished": 0, "failed": 1, "interrupted": 130, "running": 130}


class Sink:
    """Weights & Biases, as the `WANDB_` variables say."""

    def __init__(self) -> None:
        self._runs: dict[str, Any] = {}
        self._logged: dict[str, int] = {}
        """Id of an entry → its last epoch that is logged."""
        self.place = f"project {os.environ.get('WANDB_PROJECT') or PROJECT}"

    def send(self, entry: Entry) -> None:
        if entry.parent is None:
            return  # it is a group; its own run is made for the report
        run = self._run(entry, "replicate")
        for epoch, metrics in entry.epochs.items():
            if epoch > self._logged[entry.id]:
                run.log({**metrics, "epoch": epoch}, step=epoch, commit=True)
                self._logged[entry.id] = epoch
        run.summary.update({**entry.scores, **entry.tags})
        if entry.ended:
            self._end(entry)

    def send_report(self, entry: Entry, folder: Path) -> None:
        run = self._run(entry, "report")
        run.summary.update({**entry.scores, **entry.tags})
        report = wandb.Artifact(f"report-{entry.id}", type="report", description=entry.name)
        report.add_dir(str(folder))
        run.log_artifact(report)
        self._end(entry)

    def _run(self, entry: Entry, kind: str) -> Any:
        run = self._runs.get(entry.id)
        if run is None:
            run = wandb.init(
                id=entry.id,
                resume="allow",
                reinit="create_new",
                project=os.environ.get("WANDB_PROJECT") or PROJECT,
                group=os.environ.get("WANDB_RUN_GROUP") or entry.group,
                name=entry.name,
                job_type=kind,
                config={**entry.params, **entry.tags},
                # They would be of the machine that sends.
                settings=wandb.Settings(x_disable_stats=True),
            )
            self._runs[entry.id] = run
            # The step that comes next, 0 for a new run.
            self._logged[entry.id] = run.step - 1 if run.resumed else 0
            self.place = run.url or f"written to {Path(run.dir).parents[1]}, for `wandb sync`"
        run.config.update({**entry.params, **entry.tags}, allow_val_change=True)
        return run

    def _end(self, entry: Entry) -> None:
        run = self._runs.pop(entry.id)
        if entry.status in ("interrupted", "running"):
            run.mark_preempting()
        run.finish(exit_code=EXIT_STATUS[entry.status])
