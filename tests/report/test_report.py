"""The report: what is written, byte for byte, and what `jobs/report.py` says when it cannot."""

import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import fake_run
import jsonschema
import numpy as np
import pytest

from jobs.report import main
from tlcluster.cli import command
from tlcluster.errors import StoreUnavailable
from tlcluster.records import EpochRecord, ExperimentResult
from tlcluster.report.runs import read_run
from tlcluster.report.schema import SCHEMA, schema_text
from tlcluster.report.tables import results_json, summary_csv
from tlcluster.report.write import tables, write_report
from tlcluster.storage.directory import DirectoryStore
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store


def write_tiny_run(store: Store, **changes: Any) -> None:
    """Eight images of two classes; two experiments finished, one failed, one never began."""
    manifest = fake_run.manifest(
        **{
            "name": "tiny",
            "status": "failed",
            "profile": "quick",
            "started": "2026-01-02T03:04:05Z",
            "finished": "2026-01-02T03:05:05Z",
            "wall_seconds": 60.0,
            "versions": {"python": "3.11.9", "tlcluster": "1.0.0"},
            "hardware": [
                {"host": "a", "cpus": 2, "gpus": 0, "memory_bytes": 2**33, "processor": "Turnip"}
            ],
            "git_commit": None,
            "weights": {"kind": "imagenet", "sha256": "806a", "found": "in the cache"},
            "dataset": {
                "name": "cinic-10",
                "index_sha256": "b19c",
                "classes": ["cat", "dog"],
                "splits": {"train": 4, "valid": 4, "test": 8},
                "store": "shards",
            },
            **changes,
        }
    )
    store.put("manifest.json", manifest.model_dump_json().encode())
    for name, wrong in (("frozen", [0, 4, 5]), ("augmented", [0])):
        write_tiny_training(store, name, wrong)
    fake_run.write_epochs(store, "regularized", [tiny_epoch(1, 0.5)])
    fake_run.write_result(
        store,
        "regularized",
        ExperimentResult(status="failed", error="=cmd|'/C calc'!A0, \"out of memory\"", attempts=3),
    )


def write_tiny_training(store: Store, folder: str, wrong: list[int], seed: int = 524) -> None:
    fake_run.write_config(store, folder, seed=seed)
    fake_run.write_epochs(store, folder, [tiny_epoch(1, 0.5), tiny_epoch(2, math.nan)])
    fake_run.write_result(
        store,
        folder,
        ExperimentResult(
            status="finished",
            workers=({"rank": 0, "host": "a", "device": "CPU, 1 thread"},),
            attempts=1,
            epochs_run=2,
            best_epoch=1,
            stopped_early=True,
            wall_seconds=12.5,
            startup_seconds=7.25,
            images_per_second=64.0,
            worker_seconds=18.0,
            gpu_seconds=0.0,
            feature_seconds={"76/train/plain": 1.0, "76/test/plain": 0.0},
            test_seconds=1.5,
            joules=180.0,
            energy_source="RAPL",
        ),
    )
    label = np.repeat([0, 1], 4)
    probabilities = np.full((8, 2), 0.25, np.float32)
    probabilities[np.arange(8), label] = 0.75
    probabilities[wrong] = probabilities[wrong, ::-1]
    source = np.array(["cifar-10-1.png"] * 4 + ["n01234567_1.png"] * 4)
    buffer = io.BytesIO()
    np.savez(buffer, source=source, label=label, probabilities=probabilities)
    store.put(f"{folder}/predictions.npz", buffer.getvalue())


def write_tiny_seeds_run(store: Store) -> None:
    """The tiny run with three seeds: one of `augmented` failed, the last of `frozen` is damaged."""
    write_tiny_run(store, seeds=(524, 1, 2))
    write_tiny_training(store, "frozen/seeds/1", [0, 3, 5, 6], seed=1)
    write_tiny_training(store, "frozen/seeds/2", [0], seed=2)
    store.put("frozen/seeds/2/predictions.npz", b"torn")
    write_tiny_training(store, "augmented/seeds/1", [], seed=1)
    fake_run.write_config(store, "augmented/seeds/2", seed=2)
    failed = ExperimentResult(status="failed", error="out of memory", attempts=3)
    fake_run.write_result(store, "augmented/seeds/2", failed)


def tiny_epoch(epoch: int, loss: float) -> EpochRecord:
    return EpochRecord(
        epoch=epoch,
        loss=loss,
        accuracy=0.75,
        val_loss=0.625,
        val_accuracy=0.5,
        seconds=2.0,
        images_per_second=64.0,
        learning_rate=1e-3,
        workers=1,
        input_seconds=0.25,
        validation_seconds=0.5,
        sum_seconds=0.0,
        joules=90.0,
        energy_source="RAPL",
    )


GOLDEN = Path(__file__).parents[1] / "golden"
TINY_CSV = (GOLDEN / "summary.csv").read_text()
TINY_JSON = (GOLDEN / "results.json").read_text()
OF_SEEDS = {path.name: path.read_text() for path in (GOLDEN / "seeds").iterdir()}


@pytest.fixture
def tiny(tmp_path: Path) -> DirectoryStore:
    store = DirectoryStore(tmp_path)
    write_tiny_run(store)
    return store


def test_the_summary_of_a_tiny_run_is_this(tiny: DirectoryStore) -> None:
    assert summary_csv(read_run(tiny)) == TINY_CSV


def test_the_results_of_a_tiny_run_are_these(tiny: DirectoryStore) -> None:
    assert results_json(read_run(tiny)) == TINY_JSON


def test_the_tables_of_a_tiny_run_with_several_seeds_are_these(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    write_tiny_seeds_run(store)
    assert tables(read_run(store)) == OF_SEEDS


SCHEMA_TEXT = schema_text()
VALIDATOR = jsonschema.Draft202012Validator(json.loads(SCHEMA_TEXT))


@pytest.mark.parametrize("folder", ["docs", "tlcluster/report"])
def test_the_published_schema_is_the_one_of_the_models(folder: str) -> None:
    """After a change: python -m tlcluster.report.schema > docs/results.schema.json, and copy it."""
    assert (GOLDEN.parents[1] / folder / SCHEMA).read_text() == SCHEMA_TEXT


@pytest.mark.parametrize("golden", ["results.json", "seeds/results.json"])
def test_a_golden_has_what_the_schema_says_and_nothing_else(golden: str) -> None:
    content = json.loads((GOLDEN / golden).read_text())
    assert list(VALIDATOR.iter_errors(content)) == []
    strict = jsonschema.Draft202012Validator(closed(json.loads(SCHEMA_TEXT)))
    assert list(strict.iter_errors(content)) == []


def closed(value: Any) -> Any:
    """A schema whose objects have no fields but the named ones."""
    if isinstance(value, dict):
        more = {"additionalProperties": False} if "properties" in value else {}
        return {key: closed(inner) for key, inner in value.items()} | more
    return [closed(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("version",), 2),
        (("experiments", 0, "test", "accuracy"), "0.5"),
        (("experiments", 0, "replicates", 0, "status"), "great"),
        (("experiments", 0, "across_seeds", "accuracy", "ci95"), [0.1]),
        (("comparisons_across_seeds", 0, "p_adjusted"), None),
    ],
)
def test_the_schema_refuses_what_is_wrong(path: tuple[Any, ...], wrong: object) -> None:
    content = json.loads(TINY_JSON)
    *outer, last = path
    holder = content
    for step in outer:
        holder = holder[step]
    holder[last] = wrong
    assert list(VALIDATOR.iter_errors(content)) != []
    del holder[last]
    assert list(VALIDATOR.iter_errors(content)) != []
    # A later version may add fields.
    assert list(VALIDATOR.iter_errors({**json.loads(TINY_JSON), "new": 1})) == []


def test_everything_a_run_leaves_is_written_and_the_page_comes_last(tiny: DirectoryStore) -> None:
    written: list[str] = []

    class Watched(DirectoryStore):
        def put(self, key: str, data: bytes | Path) -> None:
            written.append(key)
            super().put(key, data)

    assert write_report(Watched(Path(tiny.url))) == "report/index.html"
    assert written[-1] == "report/index.html"
    names = {key.removeprefix("report/") for key in written}
    assert {"index.html", "summary.csv", "results.json"} <= names
    drawn = {name.removesuffix(".svg") for name in names if name.endswith(".svg")}
    assert drawn == {name.removesuffix(".png") for name in names if name.endswith(".png")}
    assert drawn == {
        "validation_accuracy",
        "validation_loss",
        "accuracy_over_time",
        "images_per_second",
        "utilisation",
        "per_class_precision",
        "per_class_recall",
        "per_class_f1",
        *(f"curves_{name}" for name in ("frozen", "augmented", "regularized")),
        *(f"confusion_{name}" for name in ("frozen", "augmented")),
        *(f"reliability_{name}" for name in ("frozen", "augmented")),
        *(f"architecture_{name}" for name in ("frozen", "augmented")),
    }


def contents(store: DirectoryStore) -> dict[str, bytes]:
    return {key: store.get(key) for key, _ in store.list("report/")}


def test_the_same_records_make_the_same_report_and_a_second_one_replaces_the_first(
    tiny: DirectoryStore, tmp_path_factory: pytest.TempPathFactory
) -> None:
    write_report(tiny)
    first = contents(tiny)
    write_report(tiny)
    assert contents(tiny) == first
    elsewhere = DirectoryStore(tmp_path_factory.mktemp("elsewhere"))
    write_tiny_run(elsewhere)
    write_report(elsewhere)
    assert contents(elsewhere) == first


def test_a_run_below_a_prefix_gets_its_report_there(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    write_tiny_run(DirectoryStore(folder))
    assert write_report(DirectoryStore(tmp_path), "runs/tiny/") == "runs/tiny/report/index.html"
    assert (folder / "report" / "index.html").is_file()


def test_a_run_of_which_only_the_names_are_known_gets_a_report(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    fake_run.write_run(store, fake_run.manifest(status="running"), finished=[])
    write_report(store)
    results = json.loads(store.get("report/results.json"))
    assert [one["status"] for one in results["experiments"]] == ["queued"] * 4
    assert [one["test"] for one in results["experiments"]] == [None] * 4
    assert results["comparisons"] == []


def test_the_results_have_the_weights_of_every_base(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    one = {"kind": "imagenet", "sha256": "ab" * 32, "found": "here"}
    other = {"kind": "random", "sha256": None, "found": "random"}
    weights = {"vgg16": one, "vgg19": other}
    fake_run.write_run(store, fake_run.manifest(weights=one, weights_by_base=weights), finished=[])
    run = json.loads(results_json(read_run(store)))["run"]
    assert (run["weights"], run["weights_by_base"]) == (one, weights)


def test_numbers_that_are_none_are_null_and_never_nan(tiny: DirectoryStore) -> None:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        source=np.array(["cifar-10-1.png"]),
        label=np.array([0]),
        probabilities=np.full((1, 2), np.nan, np.float32),
    )
    for name in ("frozen", "augmented"):
        tiny.put(f"{name}/predictions.npz", buffer.getvalue())

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    run = read_run(tiny)
    results = json.loads(results_json(run), parse_constant=refuse)
    assert results["experiments"][0]["test"]["loss"] is None
    assert results["experiments"][0]["history"]["loss"] == [0.5, None]
    assert "nan" not in summary_csv(run)


# The command


def ended(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "argv", ["jobs/report.py", *argv])
    for name in ("stdout", "stderr"):  # which a command replaces
        monkeypatch.setattr(sys, name, getattr(sys, name))
    with pytest.raises(SystemExit) as caught:
        command(main)
    return caught.value.code


def test_the_command_prints_where_the_report_is(
    tiny: DirectoryStore, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ended(["--run", tiny.url], monkeypatch) == 0
    out, err = capfd.readouterr()
    assert (out, err) == (f"{tiny.url}/report/index.html\n", "")


def test_the_command_reads_and_writes_a_run_in_s3(
    s3_url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    store = open_store(s3_url)
    write_tiny_run(store)
    assert ended(["--run", s3_url], monkeypatch) == 0
    assert capfd.readouterr().out == f"{s3_url}/report/index.html\n"
    assert store.get("report/results.json").decode() == TINY_JSON


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "the following arguments are required: --run; see python jobs/report.py --help"),
        (["--run", "{folder}/missing"], "{folder}/missing: no such directory"),
        (["--run", "{folder}"], "{folder}: no run here, manifest.json is missing; give the folder"),
        (["--run", "{folder}"], "; runs in {folder}: damaged"),
        (["--run", "{folder}/damagd"], "{folder}/damagd: no such directory; give the folder of"),
        (["--run", "{folder}/damagd"], "did you mean damaged?; runs in {folder}: damaged"),
        (["--run", "{folder}/damaged/manifest.json"], "is a file"),
        (["--run", "{folder}/" + "x" * 100_000], "/xxx"),
        (["--run", "{folder}/\0"], "no such directory"),
        (["--run", "s3:x"], "two slashes"),
        (["--run", "{folder}/damaged"], "{folder}/damaged/manifest.json: damaged record"),
        (["--run", "gopher://x"], "gopher://…: no such kind of store"),
        (["--jog", "x"], "see python jobs/report.py --help"),
    ],
)
def test_what_cannot_be_reported_is_said_in_one_line_and_nothing_is_written(
    argv: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "manifest.json").write_text('{"name": "half a')
    before = sorted(tmp_path.rglob("*"))
    assert ended([part.format(folder=tmp_path) for part in argv], monkeypatch) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said.format(folder=tmp_path) in err
    assert sorted(tmp_path.rglob("*")) == before


def test_storage_that_is_away_for_now_is_said_in_one_line_with_status_1(
    tiny: DirectoryStore, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def away(*_: object) -> bytes:
        raise StoreUnavailable(f"{tiny.url}: stale file handle")

    monkeypatch.setattr(DirectoryStore, "get", away)
    assert ended(["--run", tiny.url], monkeypatch) == 1
    assert capfd.readouterr() == ("", f"error: {tiny.url}: stale file handle\n")
