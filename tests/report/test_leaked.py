"""A run whose data set was audited: accuracies with and without images that other splits have."""

import io
import json
from pathlib import Path
from typing import Any

import fake_run
import numpy as np
import pytest

from jobs.report import main
from tlcluster.errors import UserError
from tlcluster.leakage import AUDIT, Audit, Duplicate, Method, Overlap
from tlcluster.orchestration.manifest import write_manifest
from tlcluster.orchestration.suite import conclude
from tlcluster.records import PREDICTIONS, RunManifest
from tlcluster.report import verify as verifying
from tlcluster.report.leakage import adopted
from tlcluster.report.page import render_page
from tlcluster.report.runs import manifest_of, read_run
from tlcluster.report.seeds.proportions import wilson
from tlcluster.report.tables import results
from tlcluster.report.verify import verify
from tlcluster.report.write import tables
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store

IMAGES = 60
LEAKED = (3, 5, 8, 13, 21, 34, 55)
FIGURES = fake_run.blank_figures("frozen", "augmented")
"""Drawing takes seconds, and no figure shows duplicates."""


def manifest(**changes: Any) -> RunManifest:
    of = fake_run.manifest(experiments=("frozen", "augmented"), **changes)
    dataset = of.dataset.model_copy(update={"splits": {"train": 90, "valid": 90, "test": IMAGES}})
    return of.model_copy(update={"dataset": dataset})


@pytest.fixture
def run(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "run"), create=True)
    fake_run.write_run(store, manifest())
    return store


@pytest.fixture
def data(tmp_path: Path, run: Store) -> Store:
    """What holds an audit of the run's data set."""
    store = open_store(str(tmp_path / "data"), create=True)
    store.put(AUDIT, audit(run).to_json())
    return store


def arrays(run: Store, name: str = "frozen") -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(run.get(f"{name}/{PREDICTIONS}"))) as found:
        return dict(found)


def right(run: Store, name: str = "frozen") -> np.ndarray:
    of = arrays(run, name)
    return of["probabilities"].argmax(axis=1) == of["label"]


def audit(run: Store, rows: tuple[int, ...] = LEAKED, **changes: Any) -> Audit:
    source = arrays(run)["source"]
    values: dict[str, Any] = {
        "dataset": "cinic-10",
        "index_sha256": manifest().dataset.index_sha256,
        "method": Method(bound=0.1, shift=2, candidates=5, similarity=0.7),
        "overlaps": (
            Overlap(
                split="test", other="train", images=IMAGES, exact=1, near=len(rows) - 1,
                other_class=2, by_class={}, by_origin={},
            ),
        ),
        "repeated": {"test": 0},
        "duplicates": {
            "test": tuple(
                Duplicate(
                    row=row, source=str(source[row]), label=row % 10, partner_split="train",
                    partner_row=row, partner_source="a.png", partner_label=(row + (place < 2)) % 10,
                    distance=0.01 * place, exact=place == 0,
                )
                for place, row in enumerate(rows)
            )
        },
        **changes,
    }  # fmt: skip
    return Audit(**values)


def take(run: Store, data: Store) -> None:
    write_manifest(run, adopted(run, data, manifest_of(run)))


def test_an_accuracy_is_given_with_and_without_the_duplicates(run: Store, data: Store) -> None:
    take(run, data)
    found = json.loads(results(read_run(run)).model_dump_json())["leakage"]
    assert (found["images"], found["duplicates"], found["exact"]) == (IMAGES, len(LEAKED), 1)
    assert found["other_class"] == 2
    for name, of in zip(("frozen", "augmented"), found["experiments"], strict=True):
        leaked = np.isin(np.arange(IMAGES), LEAKED)
        assert of["name"] == name
        for key, here in (("all", leaked | True), ("without", ~leaked), ("only", leaked)):
            told = right(run, name)[here]
            assert of[key]["mean"] == told.mean()
            assert of[key]["ci95"] == list(wilson(int(told.sum()), len(told)))


def test_without_an_audit_nothing_changes(run: Store, data: Store) -> None:
    before = tables(read_run(run)), render_page(read_run(run), FIGURES)
    # The manifest does not name it: somebody has put it there.
    run.put(AUDIT, data.get(AUDIT))
    assert (tables(read_run(run)), render_page(read_run(run), FIGURES)) == before
    assert json.loads(before[0]["results.json"])["leakage"] is None
    assert "other splits have" not in before[1]


def test_the_page_has_the_sentence_and_the_table(run: Store, data: Store) -> None:
    take(run, data)
    page = render_page(read_run(run), FIGURES)
    assert (
        "7 of 60 test images (11.67 %) are in train or valid too, 1 with the same pixels and 6 "
        "nearly (distance up to 0.1); 2 of them with another class there."
    ) in page
    assert "without the 7: 53" in page
    without = 100 * right(run)[~np.isin(np.arange(IMAGES), LEAKED)].mean()
    assert f"<td>{without:.1f}</td>" in page


@pytest.mark.parametrize(("rows", "missing"), [((), "only"), (tuple(range(IMAGES)), "without")])
def test_no_duplicates_and_nothing_but_duplicates(
    run: Store, data: Store, rows: tuple[int, ...], missing: str
) -> None:
    data.put(AUDIT, audit(run, rows).to_json())
    take(run, data)
    read = read_run(run)
    (first, _) = json.loads(tables(read)["results.json"])["leakage"]["experiments"]
    assert first[missing] is None
    assert ("No test image is in train or valid too" in render_page(read, FIGURES)) == (not rows)


def test_the_end_of_a_run_takes_the_audit_of_its_store(
    run: Store, data: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlcluster.report.write.draw_figures", lambda _: FIGURES)
    begun = manifest(status="running")
    empty = open_store(f"{data.url}/empty", create=True)
    for store, expected in ((None, None), (empty, None), (data, len(LEAKED)), (empty, len(LEAKED))):
        conclude(run, begun, 1.0, data=store)
        found = json.loads(run.get("report/results.json"))["leakage"]
        assert (found and found["duplicates"]) == expected
    # A damaged one costs no report, and the run keeps what it has.
    data.put(AUDIT, b"{")
    conclude(run, begun, 1.0, data=data)
    assert json.loads(run.get("report/results.json"))["leakage"]["duplicates"] == len(LEAKED)


def test_a_report_takes_an_audit_that_was_made_later(
    run: Store, data: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlcluster.report.write.draw_figures", lambda _: FIGURES)
    assert main(["--run", run.url]) == 0
    assert json.loads(run.get("report/results.json"))["leakage"] is None
    assert main(["--run", run.url, "--audit", data.url]) == 0
    assert json.loads(run.get("report/results.json"))["leakage"]["duplicates"] == len(LEAKED)
    # It stays.
    assert main(["--run", run.url]) == 0
    assert json.loads(run.get("report/results.json"))["leakage"]["duplicates"] == len(LEAKED)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "has no audit.json; make one: python jobs/audit.py --store s3://cinic/shards"),
        (b"{", "audit.json: damaged record"),
        (b'{"version": 2}', "audit.json: damaged record (version: Input should be 1)"),
        ({"index_sha256": "0" * 64}, "is not of the data set of this run: its index has sha256"),
    ],
)
def test_an_audit_that_cannot_be_taken_is_one_line(
    run: Store, data: Store, content: Any, said: str
) -> None:
    data.delete(AUDIT)
    if content is not None:
        made = audit(run, **content).to_json() if isinstance(content, dict) else content
        data.put(AUDIT, made)
    with pytest.raises(UserError) as caught:
        main(["--run", run.url, "--audit", data.url])
    assert said in str(caught.value)
    assert "make one: python jobs/audit.py" in str(caught.value)
    assert manifest_of(run).audit_sha256 is None


def test_a_run_that_is_not_over_takes_none_from_outside(run: Store, data: Store) -> None:
    write_manifest(run, manifest(status="running"))
    with pytest.raises(UserError, match="the run is not over, and takes the audit of its store"):
        main(["--run", run.url, "--audit", data.url])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"index_sha256": "0" * 64}, "it is of another data set than the run"),
        ({"rows": (IMAGES,)}, "it names other test images than the predictions"),
        ({"rows": (4,)}, "it names other test images than the predictions"),
    ],
)
def test_an_audit_of_other_images_in_a_run_is_named(
    run: Store, data: Store, changes: dict[str, Any], said: str
) -> None:
    take(run, data)
    made = audit(run, **{key: of for key, of in changes.items() if key != "rows"})
    if "rows" in changes:
        (first, *_) = made.duplicates["test"]
        wrong = first.model_copy(update={"row": changes["rows"][0]})
        made = made.model_copy(update={"duplicates": {"test": (wrong,)}})
    run.put(AUDIT, made.to_json())
    with pytest.raises(UserError) as caught:
        read_run(run)
    assert said in str(caught.value)


def test_verify_finds_an_audit_that_was_changed_or_is_missing(
    run: Store, data: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlcluster.report.write.draw_figures", lambda _: FIGURES)
    monkeypatch.setattr(verifying, "draw_figures", lambda _: FIGURES)
    assert main(["--run", run.url, "--audit", data.url]) == 0
    claim = f"{AUDIT} is what the run wrote"
    verdicts = {one.claim: one for one in verify(run)}
    assert verdicts[claim].verdict == "holds"
    assert "FAILS" not in {one.verdict for one in verdicts.values()}
    run.put(AUDIT, audit(run, LEAKED[1:]).to_json())
    failed = {one.claim: one.found for one in verify(run) if one.verdict == "FAILS"}
    assert claim in failed
    numbers = failed["report/results.json has the numbers of the records"]
    assert "leakage.duplicates: 7, the records say 6" in numbers
    run.delete(AUDIT)
    assert {one.claim: one.found for one in verify(run)}[claim][0].startswith("it is missing, the")


def test_hostile_names_in_an_audit_reach_no_page(run: Store, data: Store) -> None:
    made = audit(run)
    (first, *rest) = made.duplicates["test"]
    bad = first.model_copy(update={"partner_source": fake_run.HOSTILE})
    changed = made.model_copy(
        update={"dataset": fake_run.HOSTILE, "duplicates": {"test": (bad, *rest)}}
    )
    data.put(AUDIT, changed.to_json())
    take(run, data)
    assert "<script" not in render_page(read_run(run), FIGURES)
