"""`jobs/tune.py` for real: killed, and continued with two workers for each trial, of which one is
killed as well; on a data set whose test split cannot be read."""

import json
import signal
import tomllib
from pathlib import Path

import pytest
from real_run import Command, Process, alive, gone, kill

from tlcluster.dataset.ingest import ingest
from tlcluster.experiments import EXPERIMENTS
from tlcluster.machine import local_cpus
from tlcluster.storage.open import open_store
from tlcluster.tuning.page import PAGE
from tlcluster.tuning.records import TRIALS, TUNED, TUNING, TrialRecord

NAMES = ("frozen",)
TRIAL_COUNT = 4
SEEDS = 2
EPOCHS = 9
VALID = 200
"""Images to validate with."""


def command(folder: Path, store: Path, *more: object, workers: int = 1) -> Command:
    return Command(
        folder, "jobs/tune.py", ",".join(NAMES), "--trials", TRIAL_COUNT, "--finalists", 1,
        "--seeds", SEEDS, "--epochs", EPOCHS, "--store", store, "--output", folder / "runs",
        "--run-name", "search", "--weights", "none",
        "--checkpoint-seconds", 0,
        # One trial at a time: each of its processes has to import TensorFlow.
        "--workers", workers, "--cpus-per-worker", local_cpus() / workers, *more,
    )  # fmt: skip


def trials(folder: Path, name: str) -> dict[int, TrialRecord]:
    found = {}
    for path in (folder / "runs" / "search" / TRIALS / name).glob("*.json"):
        record = TrialRecord.model_validate_json(path.read_bytes())
        found[record.number] = record
    return found


def ended(folder: Path, name: str) -> dict[int, TrialRecord]:
    return {n: one for n, one in trials(folder, name).items() if one.status != "running"}


@pytest.fixture(scope="module")
def store(small_cinic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set whose test shards are damaged."""
    folder = tmp_path_factory.mktemp("sealed") / "data"
    index = ingest(str(small_cinic), open_store(str(folder), create=True), processes=1).index
    for info in index.shards("test"):
        path = folder / info.key
        path.write_bytes(b"\0" * path.stat().st_size)
    return folder


def saved(folder: Path, number: int) -> int:
    """The epoch of a trial's newest checkpoint, counted from 1; 0 without one."""
    found = (folder / "runs" / "search" / TRIALS / f"frozen-{number:05d}").rglob("*.npz")
    return max((int(path.name.partition("-")[0]) for path in found), default=0)


def repeated(found: dict[int, TrialRecord]) -> list[TrialRecord]:
    """The finalist that trains the recipe and the seed of trial 0 once more, if it has begun."""
    return [
        one
        for one in found.values()
        if (one.role, one.candidate, one.seed) == ("finalist", 0, found[0].seed)
    ]


@pytest.fixture(scope="module")
def folder(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a search whose driver was killed, and then one of the two workers of a trial."""
    folder = tmp_path_factory.mktemp("tuning")
    with command(folder, store) as first:
        first.until(lambda: len(ended(folder, "frozen")) >= 2)
        # Tune may end a process between two trials and start another.
        workers: set[Process] = set()
        first.until(lambda: workers.update(first.trial_processes()) or workers)
        assert workers
        first.send(signal.SIGKILL)
        assert gone(workers)
    before = ended(folder, "frozen")
    with command(folder, store, workers=2) as second:
        second.until(lambda: repeated(trials(folder, "frozen")))
        (one,) = repeated(trials(folder, "frozen"))
        second.until(lambda: saved(folder, one.number) >= 3)
        group, last = second.trial_workers(), saved(folder, one.number)
        assert len(group) == 2
        kill(group[:1])
        # Its newest checkpoint would be an older one if epochs were trained again.
        second.until(
            lambda: saved(folder, one.number) < last or one.number in ended(folder, "frozen")
        )
        assert saved(folder, one.number) >= last
        assert not alive(set(group))
        assert second.ended() == 0, second.said()
        assert second.stdout.read_text().splitlines()[-1].endswith(f"/search/{TUNED}")
    # What had ended is as it was.
    assert {n: one for n, one in trials(folder, "frozen").items() if n in before} == before
    return folder


@pytest.mark.cluster
def test_two_workers_of_which_one_was_killed_repeat_the_accuracies_of_one(folder: Path) -> None:
    found = trials(folder, "frozen")
    (again,) = repeated(found)
    assert len(again.val_accuracy) == EPOCHS
    # An image whose best two classes are as good as equal may be counted otherwise.
    assert again.val_accuracy == pytest.approx(found[0].val_accuracy, abs=1.01 / VALID)
    manifest = json.loads((folder / "runs" / "search" / TUNING).read_text())
    assert manifest["workers"] == 2


@pytest.mark.cluster
@pytest.mark.parametrize("name", NAMES)
def test_each_experiment_gets_as_many_trials_and_then_the_best_with_all_seeds(
    folder: Path, name: str
) -> None:
    found = trials(folder, name)
    search = [one for one in found.values() if one.role != "finalist"]
    finals = [one for one in found.values() if one.role == "finalist"]
    assert len(search) == TRIAL_COUNT
    assert found[0].role == "recipe"
    assert found[0].fields == {}
    assert {one.status for one in found.values()} <= {"finished", "stopped"}
    recipes = [tuple(sorted(one.fields.items())) for one in search]
    assert len(set(recipes)) == len(recipes)  # also after the kill, none is tried twice
    best = max(search, key=lambda one: (one.best or 0.0, -one.number)).number
    assert {one.candidate for one in finals} == {best, 0}
    for candidate in (best, 0):
        assert len({one.seed for one in finals if one.candidate == candidate}) == SEEDS
    assert all(one.worker_seconds > 0 for one in found.values())
    assert all(len(one.val_accuracy) <= EPOCHS for one in found.values())


@pytest.mark.cluster
def test_it_leaves_a_recipe_file_that_a_run_takes_and_a_page(folder: Path, tmp_path: Path) -> None:
    search = folder / "runs" / "search"
    recipe = tomllib.loads((search / TUNED).read_text())
    assert recipe["profile"] == "quick"
    assert set(recipe["experiments"]) == set(NAMES)
    page = (search / PAGE).read_text()
    assert all(f"<h2>{name}</h2>" in page for name in NAMES)
    with Command(
        tmp_path, "jobs/run_all.py", "--profile", search / TUNED, "--list-experiments"
    ) as listed:
        assert listed.ended() == 0, listed.said()
        assert listed.stdout.read_text().split() == list(EXPERIMENTS)


@pytest.mark.cluster
def test_another_space_is_refused_with_the_difference(
    folder: Path, store: Path, tmp_path: Path
) -> None:
    space = tmp_path / "other.toml"
    space.write_text("[every]\ndropout = [0.1, 0.2]\n")
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*")}
    with command(folder, store, "--space", space) as other:
        assert other.ended() == 2, other.said()
    assert "frozen.space.dropout was None, is 0.1, 0.2" in other.said()
    assert len(other.said().splitlines()) == 1
    left = {path: path.stat().st_mtime_ns for path in before if not path.name.startswith(".")}
    assert left == {path: before[path] for path in left}


def test_the_flags_of_a_search_are_checked_before_anything_starts(
    store: Path, tmp_path: Path
) -> None:
    less = ("frozen", "--budget", 1e-9, "--store", store, "--weights", "none")
    for flags, message in (
        (less, "--budget 1e-09: a trial of frozen takes at least "),
        (("frosen",), "no experiment 'frosen'; did you mean frozen"),
        (("frozen", "--trials", 0), "--trials 0: "),
        (("frozen", "--space", "no.toml"), "--space no.toml: no such file"),
    ):
        with Command(tmp_path, "jobs/tune.py", *flags, "--output", tmp_path / "out") as refused:
            assert refused.ended() == 2, refused.said()
        assert message in refused.said()
        assert len(refused.said().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.cluster
def test_the_records_of_trials_name_no_test_image(folder: Path) -> None:
    features = {path.relative_to(folder).parts[3] for path in folder.glob("runs/features/*/*")}
    assert features == {"train", "valid"}
    manifest = json.loads((folder / "runs" / "search" / TUNING).read_text())
    assert set(manifest["rows"]) == {"train", "valid"}
