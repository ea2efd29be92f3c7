"""What trackers are sent of a run."""

import pytest
from fake_run import epoch_records as epochs
from fake_run import (
    experiment_result,
    write_config,
    write_epochs,
    write_result,
)
from tracked_run import DATASET, by_name, some

from tlcluster.records import MANIFEST
from tlcluster.storage.directory import DirectoryStore
from tlcluster.tracking.entry import whole
from tlcluster.tracking.view import View


def test_the_run_comes_first_and_then_each_replicate_that_has_started(
    store: DirectoryStore,
) -> None:
    found = by_name(store)
    assert list(found) == [some().name, "frozen, seed 524", "augmented, seed 524"]
    run, frozen, augmented = found.values()
    assert (run.parent, frozen.parent, augmented.parent) == (None, run.id, run.id)
    assert [one.status for one in found.values()] == ["running", "finished", "running"]
    assert {one.group for one in found.values()} == {some().name}


def test_parameters_are_the_recipe_the_seed_the_data_and_the_weights(
    store: DirectoryStore,
) -> None:
    params = by_name(store)["frozen, seed 524"].params
    assert params == {
        "profile": "paper",
        "seed": 524,
        "threads": 8,
        "dataset": "cinic-10",
        "experiment": "frozen",
        "base": "vgg16",
        "learning_rate": 1e-3,
        "weights": "imagenet",
        "weights_sha256": some().weights.sha256,
        "trainable_params": 267_786,
        "total_params": params["total_params"],
    }


def test_tags_say_what_may_change_when_a_run_goes_on(store: DirectoryStore) -> None:
    write_result(
        store, "augmented", experiment_result("augmented", status="failed", error="no memory")
    )
    run, frozen, failed = by_name(store).values()
    shared = {
        "run": some().name,
        "tlcluster": "1.0.0",
        "index_sha256": DATASET.index_sha256,
        "git_commit": str(some().git_commit),
    }
    assert frozen.tags == {
        **shared, "experiment": "frozen", "seed": "524", "status": "finished"
    }  # fmt: skip
    assert failed.tags == {
        **shared, "experiment": "augmented", "seed": "524", "status": "failed", "error": "no memory"
    }  # fmt: skip
    assert run.tags == {
        **shared, "experiments": "frozen, augmented", "seeds": "524, 7", "status": "running"
    }  # fmt: skip


def test_every_epoch_has_its_metrics_and_the_end_has_those_of_the_test(
    store: DirectoryStore,
) -> None:
    found = by_name(store)
    running, finished = found["augmented, seed 524"], found["frozen, seed 524"]
    assert list(running.epochs) == [1, 2]
    first = epochs("augmented", 2)[0]
    assert running.epochs[1] == {
        "loss": first.loss,
        "accuracy": first.accuracy,
        "val_loss": first.val_loss,
        "val_accuracy": first.val_accuracy,
        "learning_rate": 1e-3,
        "images_per_second": first.images_per_second,
        "epoch_seconds": first.seconds,
        "workers": 2.0,
    }
    assert running.scores == {}
    assert list(finished.scores) == [
        "wall_seconds", "best_epoch", "test_accuracy", "test_loss", "test_precision_macro",
        "test_recall_macro", "test_f1_macro",
    ]  # fmt: skip
    assert finished.scores["best_epoch"] == 14
    assert 0.3 < finished.scores["test_accuracy"] < 0.7


def test_an_id_is_that_of_the_replicate_however_far_the_run_is(store: DirectoryStore) -> None:
    before = [one.id for one in by_name(store).values()]
    assert len(set(before)) == 3
    later = some(status="finished", seeds=(524, 7, 8), wall_seconds=1.0, git_commit=None)
    store.put(MANIFEST, later.model_dump_json().encode())
    assert [one.id for one in by_name(store).values()] == before
    assert whole(some(name="other")).id != before[0]
    assert whole(some(started="2026-04-12T07:15:01Z")).id != before[0]


def test_what_a_driver_leaves_running_was_interrupted_and_what_others_train_was_not(
    store: DirectoryStore,
) -> None:
    write_config(store, "augmented/seeds/7", seed=7)
    write_result(store, "augmented/seeds/7", experiment_result("augmented", status="running"))
    ours = by_name(store, "augmented", last=True)
    assert [(name, one.status) for name, one in ours.items()] == [
        (some().name, "running"), ("augmented, seed 524", "interrupted")
    ]  # fmt: skip
    assert ours["augmented, seed 524"].tags["status"] == "interrupted"
    alone = by_name(store, *some().folders, last=True)
    assert [one.status for one in alone.values()] == [
        "interrupted", "finished", "interrupted", "interrupted"
    ]  # fmt: skip
    # Sent by hand while drivers train: nobody knows better than the records.
    assert by_name(store, last=True)["augmented, seed 524"].status == "running"


def test_a_replicate_is_read_again_only_when_its_records_have_changed(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = View(store, frozenset(some().folders))
    before = view.entries(last=False)
    monkeypatch.setattr("tlcluster.tracking.view.read_replicate", lambda *_: pytest.fail("read"))
    assert view.entries(last=False) == before
    monkeypatch.undo()
    write_epochs(store, "augmented", epochs("augmented", 3))
    assert [len(one.epochs) for one in view.entries(last=False)] == [0, 24, 3]


def test_a_damaged_record_keeps_what_was_seen_and_is_named(store: DirectoryStore) -> None:
    view = View(store, None)
    before = view.entries(last=False)
    store.put("augmented/epochs.jsonl", b"{torn\n")
    assert view.entries(last=False) == before
    assert list(view.damaged) == ["augmented"]
    assert "augmented/epochs.jsonl, line 1: damaged record" in view.damaged["augmented"]
    write_epochs(store, "augmented", epochs("augmented", 2))
    assert view.entries(last=False) == before
    assert view.damaged == {}
