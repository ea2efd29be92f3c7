"""A report that was tampered with is found, and the place is named."""

import functools
import hashlib
import io
import json
import re
import shutil
from pathlib import Path

import fake_run
import numpy as np
import pytest

from jobs.verify import main
from tlcluster.dataset.ingest import ingest
from tlcluster.errors import UserError
from tlcluster.records import MANIFEST, PICTURES, PREDICTIONS, RESULT, WEIGHTS
from tlcluster.report import verify as verifying
from tlcluster.report.figures.canvas import Figure
from tlcluster.report.figures.draw import draw_figures
from tlcluster.report.page import render_page
from tlcluster.report.runs import read_run
from tlcluster.report.verify import Claim, SplitImages, verify
from tlcluster.report.write import tables, write_report
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store

SPLITS = ("train", "valid", "test")
EXPERIMENTS = ("frozen", "augmented")
LOOK = fake_run.look(200)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A finished run, with the hashes that training and the driver leave."""
    store = open_store(str(tmp_path_factory.mktemp("verify") / "run"), create=True)
    manifest = fake_run.manifest(experiments=EXPERIMENTS)
    dataset = manifest.dataset.model_copy(update={"splits": dict.fromkeys(SPLITS, 200)})
    manifest = manifest.model_copy(update={"dataset": dataset})
    fake_run.write_run(store, manifest)
    digests = {}
    for name in EXPERIMENTS:
        weights = f"weights of {name}".encode()
        store.put(f"{name}/{WEIGHTS}", weights)
        of_files = {
            WEIGHTS: sha256(weights),
            PREDICTIONS: sha256(store.get(f"{name}/{PREDICTIONS}")),
        }
        fake_run.write_result(store, name, fake_run.experiment_result(name, sha256=of_files))
        digests[name] = sha256(store.get(f"{name}/{RESULT}"))
    manifest = manifest.model_copy(update={"results_sha256": digests})
    store.put(MANIFEST, manifest.model_dump_json().encode())
    write_report(store, look=LOOK)
    return store


@pytest.fixture
def run(whole: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A copy to tamper with. Its figures, which take seconds, are drawn once for all tests."""
    shutil.copytree(whole.url, tmp_path / "copy")
    monkeypatch.setattr(verifying, "draw_figures", lambda _: drawn(whole.url))
    return open_store(str(tmp_path / "copy"))


@functools.cache
def drawn(url: str) -> dict[str, Figure]:
    return draw_figures(read_run(open_store(url)))


def split_of(run: Store) -> SplitImages:
    with np.load(io.BytesIO(run.get(f"frozen/{PREDICTIONS}"))) as arrays:
        return SplitImages(arrays["source"], arrays["label"])


def failed(run: Store, split: SplitImages | None = None) -> dict[str, tuple[str, ...]]:
    claims: list[Claim] = list(verify(run, split))
    return {one.claim: one.found for one in claims if one.verdict == "FAILS"}


def replace(run: Store, key: str, old: str, new: str) -> None:
    text = run.get(key).decode()
    assert old in text
    run.put(key, text.replace(old, new, 1).encode())


def test_everything_holds_in_a_run_that_nobody_touched(
    run: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {one.verdict for one in verify(run, split_of(run), LOOK)} == {"holds"}
    assert main(["--run", run.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "all that was checked holds"
    assert [line for line in lines if line.startswith("not checked")] == [
        "not checked  the predictions are for the test images of the data set",
        "not checked  pictures.json has images of the data set",
    ]


def test_one_prediction_that_was_changed_is_found(run: Store) -> None:
    key = f"frozen/{PREDICTIONS}"
    with np.load(io.BytesIO(run.get(key))) as found:
        arrays = dict(found)
    first = int(np.flatnonzero(right(run))[0])
    arrays["probabilities"][first] = np.roll(arrays["probabilities"][first], 1)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    run.put(key, buffer.getvalue())
    found_ = failed(run)
    assert f"{key} is what the run wrote" in found_
    (numbers,) = (said for claim, said in found_.items() if "results.json has" in claim)
    assert any("experiments[frozen].test.accuracy: " in line for line in numbers)
    # Somebody who hides it changes the hash as well, and is found by the next one.
    replace(run, f"frozen/{RESULT}", sha256_in(run, key), sha256(run.get(key)))
    assert f"frozen/{RESULT} is what the run wrote" in failed(run)


def sha256_in(run: Store, key: str) -> str:
    (said,) = (
        said for claim, said in failed(run).items() if claim == f"{key} is what the run wrote"
    )
    return said[0].rpartition(" ")[2]


def test_other_weights_and_missing_files_are_found(run: Store) -> None:
    run.put(f"augmented/{WEIGHTS}", b"others")
    run.delete("report/summary.csv")
    others, ours = sha256(b"others"), sha256(b"weights of augmented")
    weights = f"its sha256 is {others}, augmented/{RESULT} says {ours}"
    assert failed(run) == {
        f"augmented/{WEIGHTS} is what the run wrote": (weights,),
        "report/summary.csv has the numbers of the records": ("it is missing or no text",),
    }


def test_one_number_in_the_tables_is_found_with_its_place(run: Store) -> None:
    accuracy = run.get("report/results.json").decode().partition('"accuracy": ')[2].split(",")[0]
    replace(run, "report/results.json", f'"accuracy": {accuracy}', '"accuracy": 0.99')
    line = run.get("report/summary.csv").decode().splitlines()[1]
    cell = line.split(",")[-1]
    replace(run, "report/summary.csv", line, line.removesuffix(cell) + "7")
    found = failed(run)
    assert found["report/results.json has the numbers of the records"] == (
        f"experiments[frozen].test.accuracy: 0.99, the records say {accuracy}",
    )
    (said,) = found["report/summary.csv has the numbers of the records"]
    assert said.startswith("frozen, ")
    assert said.endswith(f": 7, the records say {cell}")
    assert len(found) == 2


def test_one_number_in_the_page_or_in_a_figure_is_found(run: Store) -> None:
    page = "report/index.html"
    accuracy = f"{100 * float(np.mean(right(run))):.1f}"
    body = run.get(page).decode()
    at = body.index(f"{accuracy}", body.index("</style>"))
    run.put(page, (body[:at] + "99.9" + body[at + len(accuracy) :]).encode())
    (said,) = failed(run).values()
    assert any("99.9" in line for line in said)
    assert any(accuracy in line for line in said)
    run.put(page, body.encode())
    replace(run, "report/validation_accuracy.svg", "</svg>", "<text>99</text></svg>")
    assert failed(run) == {
        "report/validation_accuracy.svg is drawn from the records": (
            "this version draws another picture of them",
        )
    }


def test_a_picture_that_was_exchanged_is_found(run: Store) -> None:
    kept = json.loads(run.get(PICTURES))
    first, second, *_ = kept["pictures"]
    first["png"], second["png"] = second["png"], first["png"]
    run.put(PICTURES, json.dumps(kept).encode())
    page = "report/index.html says what the records say"
    assert failed(run) == {page: ("a figure or picture in it is another than the records give",)}
    # Somebody who changes the page as well is found with the data set.
    found = list(verify(run, split_of(run), LOOK))
    (said,) = (one.found for one in found if one.claim.startswith(PICTURES))
    assert said == tuple(
        f"image {one['image']} ({one['source']}) is another one in the data set"
        for one in (first, second)
    )


def right(run: Store) -> np.ndarray:
    with np.load(io.BytesIO(run.get(f"frozen/{PREDICTIONS}"))) as arrays:
        return arrays["probabilities"].argmax(axis=1) == arrays["label"]


def test_predictions_of_other_images_are_found(run: Store) -> None:
    split = split_of(run)
    split.source[0] = "cifar-10-test-other.png"
    assert failed(run, split) == {
        "the predictions are for the test images of the data set": tuple(
            f"{name}/{PREDICTIONS}: other images or labels than the test split"
            for name in EXPERIMENTS
        )
    }


def test_another_data_set_is_refused(run: Store, small_cinic: Path, tmp_path: Path) -> None:
    data = open_store(str(tmp_path / "data"), create=True)
    ingest(str(small_cinic), data, processes=1)
    with pytest.raises(UserError, match="is not the data set of this run: its index has sha256 "):
        main(["--run", run.url, "--store", data.url])


def test_a_file_without_a_hash_is_said_to_be_unchecked(run: Store) -> None:
    """Runs of version 0.1.0 have none."""
    fake_run.write_result(run, "frozen", fake_run.experiment_result("frozen"))
    verdicts = {one.claim: one.verdict for one in verify(run)}
    assert verdicts[f"frozen/{PREDICTIONS} is what the run wrote"] == "not checked"
    assert verdicts[f"frozen/{RESULT} is what the run wrote"] == "FAILS"
    assert verdicts[f"augmented/{PREDICTIONS} is what the run wrote"] == "holds"


# Several seeds


@pytest.fixture
def of_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A finished run of two seeds, with all hashes, and a report without figures."""
    names = (
        "per_class_precision", "per_class_recall", "per_class_f1", "confusion_frozen",
        "architecture_frozen",
    )  # fmt: skip
    figures = {name: Figure(name, "", b"", b"", "") for name in names}
    monkeypatch.setattr(verifying, "draw_figures", lambda _: figures)
    store = open_store(str(tmp_path / "seeds"), create=True)
    dataset = {**fake_run.manifest().dataset.model_dump(), "splits": dict.fromkeys(SPLITS, 60)}
    manifest = fake_run.manifest(experiments=("frozen",), seeds=(524, 7), dataset=dataset)
    fake_run.write_run(store, manifest)
    digests = {}
    for folder in ("frozen", "frozen/seeds/7"):
        store.put(f"{folder}/{WEIGHTS}", folder.encode())
        of_files = {file: sha256(store.get(f"{folder}/{file}")) for file in (WEIGHTS, PREDICTIONS)}
        fake_run.write_result(store, folder, fake_run.experiment_result("frozen", sha256=of_files))
        digests[folder] = sha256(store.get(f"{folder}/{RESULT}"))
    manifest = manifest.model_copy(update={"results_sha256": digests})
    store.put(MANIFEST, manifest.model_dump_json().encode())
    read = read_run(store)
    for name, content in tables(read).items():
        store.put(f"report/{name}", content.encode())
    page = render_page(read, figures)
    store.put("report/index.html", page.encode())
    for figure in figures.values():
        store.put(f"report/{figure.name}.svg", figure.svg)
    return store


def test_what_every_seed_left_is_checked(of_seeds: Store) -> None:
    claims = {one.claim: one.verdict for one in verify(of_seeds, split_of(of_seeds))}
    assert set(claims.values()) == {"holds"}
    for file in (RESULT, PREDICTIONS, WEIGHTS):
        assert f"frozen/seeds/7/{file} is what the run wrote" in claims


def test_another_seeds_predictions_that_were_changed_are_found(of_seeds: Store) -> None:
    key = f"frozen/seeds/7/{PREDICTIONS}"
    of_seeds.put(key, fake_run.predictions("frozen", 60, seed=8))
    found = failed(of_seeds, split_of(of_seeds))
    assert f"{key} is what the run wrote" in found
    numbers = found["report/results.json has the numbers of the records"]
    assert any(".across_seeds.accuracy.mean: " in line for line in numbers) or len(numbers) > 5
    assert "report/seeds.csv has the numbers of the records" in found


def test_another_seed_that_is_damaged_fails_its_own_claims(of_seeds: Store) -> None:
    of_seeds.put(f"frozen/seeds/7/{RESULT}", b"{")
    of_seeds.put(f"frozen/seeds/7/{PREDICTIONS}", b"torn")
    found = failed(of_seeds, split_of(of_seeds))
    assert f"frozen/seeds/7/{RESULT} is what the run wrote" in found
    assert found["the predictions are for the test images of the data set"] == (
        f"frozen/seeds/7/{PREDICTIONS}: damaged",
    )


def test_a_mean_that_was_changed_is_found_with_its_place(of_seeds: Store) -> None:
    text = of_seeds.get("report/results.json").decode()
    (mean,) = re.findall(r'"across_seeds":.*?"accuracy": \{\s*"mean": ([\d.]+)', text, re.DOTALL)
    replace(of_seeds, "report/results.json", f'"mean": {mean}', '"mean": 0.99')
    (said,) = failed(of_seeds).values()
    assert said == (
        f"experiments[frozen].across_seeds.accuracy.mean: 0.99, the records say {mean}",
    )
