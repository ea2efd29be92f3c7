"""Rounds of `--resolve`: which seeds a run trains next, until there is nothing to be decided."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fake_run
import pytest

from tlcluster.cli import OK, parse
from tlcluster.errors import UserError
from tlcluster.orchestration import suite
from tlcluster.orchestration.admission import Admission
from tlcluster.orchestration.looks import next_look
from tlcluster.orchestration.manifest import read_manifest
from tlcluster.orchestration.ready import Ready
from tlcluster.orchestration.stopping import StopRequests
from tlcluster.records import RESULT, LooksRecord
from tlcluster.settings import RunSettings
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store

IMAGES = 3000
EXPERIMENTS = ("frozen", "augmented", "finetuned")
"""By how the records are made, the first two are about as good, and the third is far better."""


def settings(*flags: str) -> RunSettings:
    words = ("--run-name", "first", "--experiments", ",".join(EXPERIMENTS), "--resolve")
    return parse(RunSettings, "run", "", (*words, "--max-seeds", "6", *flags))


def ready(store: Store, *flags: str) -> Ready:
    given = settings(*flags)
    admission = Admission(1, 0.5, 0, 4, 2)
    return Ready(given, given.recipe(), store, None, "", {}, (), admission)  # type: ignore[arg-type]


@pytest.fixture
def run(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "runs" / "first"), create=True)


def trained(run: Store, seeds: Sequence[int] = (524, 525, 526), **changes: Any) -> None:
    """Leave the records of a run with these seeds."""
    dataset = fake_run.manifest().dataset
    dataset = dataset.model_copy(update={"splits": {**dataset.splits, "test": IMAGES}})
    rule = LooksRecord(first=3, most=6)
    told = {"dataset": dataset, "seeds": seeds, "looks": rule, "experiments": EXPERIMENTS}
    fake_run.write_run(run, fake_run.manifest(**{**told, **changes}))


def test_only_experiments_of_pairs_that_are_not_decided_get_more_seeds(run: Store) -> None:
    trained(run)
    more = next_look(ready(run), run)
    assert more is not None
    assert more.counts == {"frozen": 6, "augmented": 6, "finetuned": 3}
    assert more.seeds == tuple(range(524, 530))
    assert len(more.replicates) == 15
    trained(run, seeds=more.seeds, seed_counts={"finetuned": 3})
    assert next_look(more, run) is None


def test_a_run_that_was_interrupted_comes_to_the_same_seeds_again(run: Store) -> None:
    trained(run, seeds=tuple(range(524, 530)), seed_counts={"finetuned": 3})
    run.delete(f"frozen/seeds/528/{RESULT}")
    run.delete("frozen/seeds/528/predictions.npz")
    more = next_look(ready(run), run)
    assert more is not None
    # What the others have already is in the manifest, which keeps it.
    assert more.counts == {"frozen": 6, "augmented": 3, "finetuned": 3}
    assert more.seeds == tuple(range(524, 530))


def test_an_experiment_of_which_a_seed_failed_gets_no_more_of_them(run: Store) -> None:
    trained(run)
    lost = fake_run.experiment_result("frozen", status="failed", error="lost", best_epoch=None)
    fake_run.write_result(run, "frozen/seeds/525", lost)
    assert next_look(ready(run), run) is None


def test_without_the_flag_there_is_no_further_look(run: Store) -> None:
    trained(run)
    given = parse(RunSettings, "run", "", ("--experiments", ",".join(EXPERIMENTS)))
    before = ready(run)
    without = Ready(given, given.recipe(), run, None, "", {}, (), before.admission)  # type: ignore[arg-type]
    assert next_look(without, run) is None


class FakeDriver:
    """Leaves the records that workers would."""

    started: list[list[str]] = []  # noqa: RUF012

    def __init__(self, ready: Ready, manifest: Any, *stores: Any) -> None:
        self._ready, self._manifest, self._run = ready, manifest, stores[1]
        self.stopping, self.away, self.gave_up = StopRequests(), None, False
        self.budget_spent = None
        self.statuses = {one.key: "finished" for one in ready.replicates}

    def run(self) -> None:
        there = {item.key for item in self._run.list()}
        new = [one for one in self._ready.replicates if f"{one.key}/{RESULT}" not in there]
        self.started.append([one.key for one in new])
        for one in new:
            fake_run.write_replicate(self._run, self._manifest, one.experiment.name, one.seed)

    def leave(self) -> None:
        pass


def test_a_run_goes_on_from_look_to_look_and_reports_what_was_decided(
    run: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def begun(ready: Ready, *_: object) -> Any:
        dataset = fake_run.manifest().dataset
        splits = {**dataset.splits, "test": IMAGES}
        return fake_run.manifest(
            status="running",
            experiments=EXPERIMENTS,
            seeds=ready.seeds,
            seed_counts=ready.counts,
            looks=LooksRecord(first=3, most=6),
            dataset=dataset.model_copy(update={"splits": splits}),
        )

    monkeypatch.setattr(FakeDriver, "started", [])
    monkeypatch.setattr(suite, "Driver", FakeDriver)
    monkeypatch.setattr(suite, "made_ready", lambda *_: ready(run))
    monkeypatch.setattr(suite, "begun_manifest", begun)
    monkeypatch.setattr(suite, "pictured", lambda *_: iter(()))
    told = settings("--output", str(tmp_path / "runs"))
    assert suite.run_suite(told, "command", 0.0) == OK
    assert [len(keys) for keys in FakeDriver.started] == [9, 6]
    manifest = read_manifest(run)
    assert manifest is not None
    assert manifest.status == "finished"
    assert [len(manifest.seeds_of(name)) for name in EXPERIMENTS] == [6, 6, 3]
    results = json.loads(run.get("report/results.json"))
    decided = {(one["a"], one["b"]): one for one in results["resolution"]["pairs"]}
    assert decided["frozen", "finetuned"]["better"] == "finetuned"
    assert decided["frozen", "finetuned"]["seeds"] == 3
    assert decided["frozen", "augmented"]["seeds"] == 6
    assert results["resolution"]["wanted"] == {}
    assert [len(one["replicates"]) for one in results["experiments"]] == [6, 6, 3]
    page = run.get("report/index.html").decode()
    assert "Decided with more seeds" in page
    assert "looked at 3 and 6 seeds" in page
    assert capsys.readouterr().out.endswith("report/index.html\n")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--resolve", "--seeds", "2"), "--resolve: looks first at 3 seeds or more, and --seeds"),
        (("--resolve", "--seeds", "3", "--only-seed", "525"), "--resolve: looks at all seeds"),
        (("--max-seeds", "9"), "--max-seeds 9: is for --resolve"),
        (("--resolve", "--max-seeds", "2"), "--max-seeds 2: is less than the 3 of --seeds"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_in_one_line(flags: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(RunSettings, "run", "", flags)
    assert str(caught.value).startswith(said)


def test_the_flag_alone_begins_with_three_seeds_and_may_come_to_twenty() -> None:
    given = parse(RunSettings, "run", "", ("--resolve",))
    assert given.all_seeds == (524, 525, 526)
    assert given.possible_seeds == tuple(range(524, 544))
    listed = parse(RunSettings, "run", "", ("--resolve", "--seeds", "9,2,7", "--max-seeds", "5"))
    assert listed.possible_seeds == (9, 2, 7, 10, 11)
