"""Reading a run: whatever is there is used, and what is damaged is named."""

import io
from pathlib import Path

import fake_run
import numpy as np
import pytest

from tlcluster.errors import UserError
from tlcluster.records import ExperimentResult, RunManifest
from tlcluster.report.runs import read_run
from tlcluster.storage.directory import DirectoryStore


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path)


def put_manifest(store: DirectoryStore, manifest: RunManifest) -> None:
    store.put("manifest.json", manifest.model_dump_json().encode())


def test_a_whole_run_is_read_in_the_order_of_its_manifest(store: DirectoryStore) -> None:
    names = ("finetuned", "frozen")
    dataset = {**fake_run.manifest().dataset.model_dump(), "splits": {"test": 40}}
    fake_run.write_run(store, fake_run.manifest(experiments=names, dataset=dataset))
    run = read_run(store)
    assert [one.name for one in run.experiments] == list(names)
    assert [one.status for one in run.experiments] == ["finished", "finished"]
    assert [one.metrics.images for one in run.experiments if one.metrics] == [40, 40]
    assert [(one.a, one.b) for one in run.comparisons] == [("finetuned", "frozen")]


def test_a_run_below_a_prefix_is_read_like_one_of_its_own(store: DirectoryStore) -> None:
    folder = Path(store.url, "runs", "first")
    folder.mkdir(parents=True)
    fake_run.write_mixed_run(DirectoryStore(folder))
    assert read_run(store, "runs/first/") == read_run(DirectoryStore(folder))


@pytest.mark.parametrize(
    ("run_status", "left", "status"),
    [
        ("running", "nothing", "queued"),
        ("running", "epochs", "running"),
        ("interrupted", "nothing", "queued"),
        ("interrupted", "epochs", "interrupted"),
        ("interrupted", "result that still says running", "interrupted"),
        ("failed", "result that says failed", "failed"),
    ],
)
def test_what_an_experiment_left_decides_its_status(
    run_status: str, left: str, status: str, store: DirectoryStore
) -> None:
    put_manifest(store, fake_run.manifest(experiments=("frozen",), status=run_status))
    if left == "epochs":
        fake_run.write_epochs(store, "frozen", fake_run.epoch_records("frozen", 2))
    if left.startswith("result"):
        says = left.rpartition(" ")[2]
        result = ExperimentResult.model_validate({"status": says})
        fake_run.write_result(store, "frozen", result)
    (experiment,) = read_run(store).experiments
    assert experiment.status == status


def test_without_a_result_epochs_and_time_are_those_recorded_so_far(store: DirectoryStore) -> None:
    put_manifest(store, fake_run.manifest(experiments=("frozen",), status="running"))
    epochs = fake_run.epoch_records("frozen", 3)
    fake_run.write_epochs(store, "frozen", epochs)
    (experiment,) = read_run(store).experiments
    assert experiment.result.epochs_run == 3
    assert experiment.result.wall_seconds == sum(epoch.seconds for epoch in epochs)
    assert experiment.result.best_epoch is None
    assert experiment.best_so_far == 3


def test_the_best_epoch_so_far_is_the_first_of_equals(store: DirectoryStore) -> None:
    put_manifest(store, fake_run.manifest(experiments=("frozen",), status="running"))
    epochs = [
        epoch.model_copy(update={"val_accuracy": accuracy})
        for epoch, accuracy in zip(
            fake_run.epoch_records("frozen", 4), (float("nan"), 0.4, 0.5, 0.5), strict=True
        )
    ]
    fake_run.write_epochs(store, "frozen", epochs)
    (experiment,) = read_run(store).experiments
    assert experiment.best_so_far == 3


def test_epochs_that_were_trained_again_after_a_resume_count_once(store: DirectoryStore) -> None:
    put_manifest(store, fake_run.manifest(experiments=("frozen",)))
    first = fake_run.epoch_records("frozen", 5)
    again = [epoch.model_copy(update={"loss": 9.0}) for epoch in first[2:4]]
    fake_run.write_epochs(store, "frozen", [*first, *again])
    (experiment,) = read_run(store).experiments
    assert experiment.epochs == (*first[:2], *again)


def test_the_loss_of_a_diverged_epoch_survives_writing_and_reading(store: DirectoryStore) -> None:
    put_manifest(store, fake_run.manifest(experiments=("frozen",)))
    (epoch,) = fake_run.epoch_records("frozen", 1)
    diverged = epoch.model_copy(update={"loss": float("nan"), "val_loss": float("inf")})
    fake_run.write_epochs(store, "frozen", [diverged])
    (experiment,) = read_run(store).experiments
    assert str(experiment.epochs[0]) == str(diverged)


def test_the_images_of_an_empty_test_split_have_no_metrics(store: DirectoryStore) -> None:
    put_manifest(store, fake_run.manifest(experiments=("frozen",)))
    store.put("frozen/predictions.npz", fake_run.predictions("frozen", 0))
    (experiment,) = read_run(store).experiments
    assert experiment.metrics is None


def test_a_folder_without_a_manifest_is_no_run(store: DirectoryStore) -> None:
    with pytest.raises(UserError, match=r"no run here, manifest\.json is missing; give the folder"):
        read_run(store)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "Invalid JSON"),
        (b'{"name": "x"', "Invalid JSON"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"[]", "Input should be an object"),
        (b"{}", "name: Field required"),
    ],
)
def test_a_damaged_manifest_is_named_in_one_line(
    content: bytes, what: str, store: DirectoryStore
) -> None:
    store.put("manifest.json", content)
    with pytest.raises(UserError) as caught:
        read_run(store)
    message = str(caught.value)
    assert message.startswith(f"{store.url}/manifest.json: damaged record (")
    assert what in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["../other", "a/b", "", ".", "<script>", "x" * 101, "a\nb"])
def test_a_name_that_could_leave_the_run_is_refused(name: str, store: DirectoryStore) -> None:
    put_manifest(store, fake_run.manifest(experiments=(name,)))
    with pytest.raises(UserError, match="is no experiment's name"):
        read_run(store)


@pytest.mark.parametrize(
    ("key", "content"),
    [
        ("config.json", b'{"seed": 1}'),
        ("result.json", b'{"status": "great"}'),
        ("epochs.jsonl", b'{"epoch": 1}\n'),
        ("predictions.npz", b"no archive"),
        ("predictions.npz", b"PK\x03\x04 torn"),
    ],
)
def test_a_damaged_record_of_an_experiment_is_named_in_one_line(
    key: str, content: bytes, store: DirectoryStore
) -> None:
    put_manifest(store, fake_run.manifest(experiments=("frozen",)))
    store.put(f"frozen/{key}", content)
    with pytest.raises(UserError, match=f"/frozen/{key}.*: damaged record") as caught:
        read_run(store)
    assert "\n" not in str(caught.value)


GOOD = {
    "source": np.array(["cifar-10-1.png", "cifar-10-2.png"]),
    "label": np.array([0, 1]),
    "probabilities": np.full((2, 10), 0.1, np.float32),
}


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"label": np.array([0, 10])}, "a label is not between 0 and 9"),
        ({"label": np.array([0, -1])}, "a label is not between 0 and 9"),
        ({"label": np.array([0.0, 1.0])}, "do not fit together"),
        ({"label": np.array([0])}, "do not fit together"),
        ({"probabilities": np.zeros((2, 9), np.float32)}, "do not fit together and 10 classes"),
        ({"source": np.array([1, 2])}, "do not fit together"),
        # Unpickling would run whatever the file says.
        ({"source": np.array(["a", None], object)}, "an array of objects"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(
    changed: dict[str, np.ndarray], what: str, store: DirectoryStore
) -> None:
    put_manifest(store, fake_run.manifest(experiments=("frozen",)))
    buffer = io.BytesIO()
    np.savez(buffer, **{**GOOD, **changed})
    store.put("frozen/predictions.npz", buffer.getvalue())
    with pytest.raises(UserError, match="damaged record") as caught:
        read_run(store)
    assert what in str(caught.value)
