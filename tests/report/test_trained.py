"""Runs with several seeds: what is read of each seed, and what they say together."""

import csv
import io
import json
from pathlib import Path

import fake_run
import jsonschema
import numpy as np
import pytest

from tlcluster.errors import UserError
from tlcluster.records import CONFIG, EPOCHS, MANIFEST, PREDICTIONS, RESULT
from tlcluster.report.runs import read_run
from tlcluster.report.schema import schema
from tlcluster.report.tables import results_json, seeds_csv, summary_csv
from tlcluster.report.trained import Run
from tlcluster.storage.directory import DirectoryStore


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> DirectoryStore:
    store = DirectoryStore(tmp_path_factory.mktemp("seeds"))
    fake_run.write_seeds_run(store, test_images=300)
    return store


@pytest.fixture(scope="module")
def run(whole: DirectoryStore) -> Run:
    return read_run(whole)


def test_every_seed_of_every_experiment_has_its_status(run: Run) -> None:
    assert run.several
    statuses = {
        one.name: [(replicate.seed, replicate.status) for replicate in one.replicates]
        for one in run.experiments
    }
    whole = [(seed, "finished") for seed in fake_run.SEVERAL]
    assert statuses == {
        "frozen": whole,
        "augmented": [*whole[:3], (3, "failed"), whole[4]],
        "regularized": [*whole[:4], (4, "interrupted")],
        "finetuned": [*whole[:2], (2, "damaged"), *whole[3:]],
    }


def test_a_seed_that_is_missing_is_queued_and_the_others_count(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    dataset = {**fake_run.manifest().dataset.model_dump(), "splits": {"test": 40}}
    of = fake_run.manifest(experiments=("frozen",), seeds=(524, 7, 8), dataset=dataset)
    fake_run.write_run(store, of, finished=[])
    fake_run.write_replicate(store, of, "frozen", 8)
    (experiment,) = read_run(store).experiments
    assert [one.status for one in experiment.replicates] == ["queued", "queued", "finished"]
    assert experiment.metrics is None  # of the first seed
    assert experiment.accuracy is not None
    assert experiment.accuracy.covers == "images"
    (tested,) = experiment.tested
    assert tested.seed == 8


def test_what_failed_has_its_reason_and_no_part_in_the_mean(run: Run) -> None:
    _, augmented, _, finetuned = run.experiments
    assert augmented.replicates[3].result.error == fake_run.OUT_OF_MEMORY
    damaged = finetuned.replicates[2].result.error
    assert damaged is not None
    # Without the place of the run: the same records make the same report anywhere.
    assert damaged.startswith(f"finetuned/seeds/2/{PREDICTIONS}: damaged record (")
    for experiment in run.experiments:
        accuracies = [one.metrics.accuracy for one in experiment.tested if one.metrics]
        assert experiment.accuracy is not None
        assert experiment.accuracy.seeds == tuple(accuracies)
        assert experiment.accuracy.mean == pytest.approx(np.mean(accuracies))
        assert experiment.accuracy.spread == pytest.approx(np.std(accuracies, ddof=1))
        assert experiment.accuracy.covers == "images and seeds"


def test_the_first_seed_speaks_for_the_experiment_where_one_does(run: Run) -> None:
    for experiment in run.experiments:
        first = experiment.replicates[0]
        assert (first.seed, experiment.metrics) == (524, first.metrics)
        assert (experiment.result, experiment.epochs) == (first.result, first.epochs)
    for of_first, of_all in zip(run.comparisons, run.contrasts, strict=True):
        assert (of_first.a, of_first.b) == (of_all.a, of_all.b)
        assert of_first.test in ("exact", "chi-square")
        assert (of_all.test, of_all.covers) == ("t", "images and seeds")


def test_with_one_seed_all_seeds_say_what_the_first_one_does(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    dataset = {**fake_run.manifest().dataset.model_dump(), "splits": {"test": 60}}
    fake_run.write_run(
        store, fake_run.manifest(experiments=("frozen", "finetuned"), dataset=dataset)
    )
    run = read_run(store)
    assert not run.several
    for one in run.experiments:
        assert one.metrics is not None
        assert one.accuracy is not None
        assert one.accuracy.mean == one.metrics.accuracy
        assert (one.accuracy.interval, one.accuracy.spread) == (one.metrics.interval, None)
        assert {origin.name: origin.interval for origin in one.metrics.per_origin} == {
            name: of.interval for name, of in one.origins.items()
        }
        assert one.replication is not None
        assert one.replication.inside is None
    (first,), (every,) = run.comparisons, run.contrasts
    assert (first.p_value, first.interval) == (every.p_value, every.interval)
    assert every.probability is None


def test_a_seed_that_was_tested_on_other_images_is_left_out(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    dataset = {**fake_run.manifest().dataset.model_dump(), "splits": {"test": 40}}
    of = fake_run.manifest(experiments=("frozen",), seeds=(524, 7), dataset=dataset)
    fake_run.write_run(store, of)
    store.put(f"frozen/seeds/7/{PREDICTIONS}", fake_run.predictions("frozen", 39))
    (experiment,) = read_run(store).experiments
    other = experiment.replicates[1]
    assert (other.status, other.metrics) == ("damaged", None)
    assert other.result.error == "tested on other images than the other trainings of the run"
    assert experiment.accuracy is not None
    assert len(experiment.accuracy.seeds) == 1


def test_a_seed_with_the_records_of_another_is_damaged(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    of = fake_run.manifest(experiments=("frozen",), seeds=(524, 7))
    fake_run.write_run(store, of, finished=[])
    fake_run.write_config(store, "frozen/seeds/7", seed=8)
    (experiment,) = read_run(store).experiments
    assert experiment.replicates[1].status == "damaged"
    assert "it belongs to the seed 8" in (experiment.replicates[1].result.error or "")


@pytest.mark.parametrize("file", [CONFIG, EPOCHS, RESULT, PREDICTIONS])
def test_a_damaged_file_of_another_seed_is_named_in_its_row(file: str, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    dataset = {**fake_run.manifest().dataset.model_dump(), "splits": {"test": 20}}
    of = fake_run.manifest(experiments=("frozen",), seeds=(524, 7), dataset=dataset)
    fake_run.write_run(store, of)
    store.put(f"frozen/seeds/7/{file}", b"{torn")
    run = read_run(store)
    other = run.experiments[0].replicates[1]
    assert other.status == "damaged"
    assert (other.result.error or "").startswith(f"frozen/seeds/7/{file}")
    (row,) = json.loads(results_json(run))["experiments"][0]["replicates"][1:]
    assert (row["status"], row["test"]) == ("damaged", None)
    assert row["error"] == other.result.error


def test_what_is_written_of_many_seeds_is_what_the_schema_says(run: Run) -> None:
    validator = jsonschema.Draft202012Validator(schema())
    assert list(validator.iter_errors(json.loads(results_json(run)))) == []
    rows = list(csv.DictReader(io.StringIO(seeds_csv(run))))
    assert [(row["experiment"], int(row["seed"])) for row in rows] == [
        (name, seed) for name in run.manifest.experiments for seed in fake_run.SEVERAL
    ]
    summary = list(csv.DictReader(io.StringIO(summary_csv(run))))
    assert [row["seeds"] for row in summary] == ["5", "4", "4", "4"]
    frozen = run.experiments[0].accuracy
    assert frozen is not None
    assert float(summary[0]["accuracy_mean"]) == frozen.mean


@pytest.mark.parametrize("seeds", [(1, 524), (524, 1, 1), (524, 524)])
def test_seeds_that_do_not_fit_the_manifest_are_refused(
    seeds: tuple[int, ...], tmp_path: Path
) -> None:
    store = DirectoryStore(tmp_path)
    store.put(MANIFEST, fake_run.manifest(seeds=seeds).model_dump_json().encode())
    with pytest.raises(UserError, match="its seeds are not 524 and others, each once"):
        read_run(store)
