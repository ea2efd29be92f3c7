"""Runs of the experiments for a benchmark, and their results."""

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tlcluster.bench.context import Context
from tlcluster.bench.program import finished
from tlcluster.errors import UserError
from tlcluster.paths import typed
from tlcluster.records import EPOCHS, EpochRecord

STUDY_EPOCHS = 55
"""The study's limit for its first two models; whole trainings have as many epochs."""

SEEDS = (524, 1, 2)
"""Seeds of the trainings whose accuracy is compared: a single one varies by a point."""


class Run(NamedTuple):
    """A run that finished."""

    seconds: float
    """Of the whole command."""
    results: dict[str, Any]
    """`report/results.json`."""
    folder: Path
    command: str
    """As a reader may type it."""

    def epochs(self, experiment: str) -> list[EpochRecord]:
        lines = (self.folder / experiment / EPOCHS).read_text().splitlines()
        return [EpochRecord.model_validate_json(line) for line in lines]

    def experiment(self, name: str) -> dict[str, Any]:
        """Its entry in `results.json`."""
        (found,) = (e for e in self.results["experiments"] if e["name"] == name)
        return dict(found)

    def accuracy(self, name: str) -> float:
        """Of an experiment on the test split, in percent."""
        return 100 * float(self.experiment(name)["test"]["accuracy"])


def paper(experiments: str, epochs: int, *more: str) -> list[str]:
    """Flags of a run that does not stop early, so that it trains every epoch."""
    patience = ("--set", f"*.patience={epochs}")
    recipe = ("--profile", "paper", "--experiments", experiments, "--epochs", str(epochs))
    return [*recipe, *patience, *more]


def run(context: Context, store: Path | None, output: Path, name: str, *options: object) -> Run:
    """Run to the end. An earlier run of this name is deleted; features in `output` stay.

    Args:
        context: of the benchmark.
        store: where the images are; None has the command start its embedded store.
        output: folder of the run's folder.
        name: of the run.
        options: flags that the measurement is about.

    Raises:
        UserError: it did not finish.
    """
    given = list(map(str, options))
    shown = " ".join([typed("run"), shlex.join([*(["--store", "STORE"] if store else []), *given])])
    context.say(f"running {shown}")
    shutil.rmtree(output / name, ignore_errors=True)
    places = ["--output", str(output), "--run-name", name]
    places += ["--store", str(store)] if store else []
    places += ["--weights", context.weights] if context.weights else []
    ended = finished([sys.executable, "-P", "-m", "tlcluster", "run", *places, *given])
    if ended.status:
        words = [line for line in ended.stderr.splitlines() if line.strip()]
        raise UserError(
            f"{shown} ended with status {ended.status}: "
            f"{words[-1] if words else f'see the report in {output / name}'}"
        )
    results = json.loads((output / name / "report" / "results.json").read_text())
    return Run(ended.seconds, results, output / name, shown)


def emptied(folder: Path) -> Path:
    """Empty a folder, including features of earlier runs."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
