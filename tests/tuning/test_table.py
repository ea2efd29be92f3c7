"""What a search prints where the output is no terminal."""

import io

import pytest
from rich.console import Console

from tlcluster.experiments import EXPERIMENTS
from tlcluster.tuning import table
from tlcluster.tuning.records import TrialRecord
from tlcluster.tuning.table import SearchTable


def test_a_trial_is_said_when_it_starts_now_and_then_and_when_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(table.time, "monotonic", lambda: now)
    console = Console(file=io.StringIO(), width=200)
    frozen = EXPERIMENTS["frozen"].model_copy(update={"epochs": 9})
    trial = TrialRecord(
        number=3, role="search", candidate=3, seed=1, fields={"dropout": 0.2}, status="running"
    )
    with SearchTable(console, "search, quick profile", wanted=2, finals=2) as shown:
        for seconds, accuracies, status in (
            (0, (), "running"),
            (10, (0.2,), "running"),
            (70, (0.2, 0.4), "running"),
            (71, (0.2, 0.4, 0.3), "stopped"),
        ):
            now = float(seconds)
            trial = trial.model_copy(update={"val_accuracy": accuracies, "status": status})
            shown.show({"frozen": {3: trial}}, frozen, trial)
            shown.show({"frozen": {3: trial}}, frozen, None)
    lines = [line.split("  ") for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert [[part.strip() for part in line if part] for line in lines] == [
        ["search, quick profile"],
        ["frozen", "trial", "3", "running", "dropout rate 0.2"],
        ["frozen", "trial", "3", "running", "epoch 2/9", "val. accuracy 40.00 %", "best 40.00 %",
         "dropout rate 0.2"],
        ["frozen", "trial", "3", "stopped", "epoch 3/9", "val. accuracy 40.00 %", "best 40.00 %",
         "dropout rate 0.2"],
    ]  # fmt: skip
