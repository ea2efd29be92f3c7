"""What a report says of workers that hung."""

import json
from pathlib import Path

import fake_run
import jsonschema
import pytest
from browsing import visit
from selenium import webdriver

from tlcluster.errors import UserError
from tlcluster.records import HANGS, MANIFEST, ExperimentResult, HangRecord, RankRecord
from tlcluster.report.page import render_page
from tlcluster.report.runs import read_run
from tlcluster.report.schema import schema_text
from tlcluster.report.tables import results_json
from tlcluster.report.verify import verify
from tlcluster.report.write import write_report
from tlcluster.storage.directory import DirectoryStore

STEPS = "steps 9 to 16 of epoch 2"
HANG = HangRecord(
    attempt=2,
    seconds=1800.25,
    why=f"rank 1 on gpu02 (process 4711) is stopped by a signal in the {STEPS}",
    ranks=(
        RankRecord(
            rank=0,
            host="gpu01",
            pid=4242,
            process="sleeping",
            cores=0.02,
            doing=STEPS,
            seconds=1801.0,
            exchange=STEPS,
            inside=True,
            stack=("tlcluster/training/loop.py:99 _train", "tensorflow/execute.py:53 execute"),
            other_stacks=(("tlcluster/training/features.py:190 load",),),
        ),
        RankRecord(rank=1, host="gpu02", pid=4711, process="stopped by a signal"),
    ),
)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """A run of two seeds of which nothing was tested, and one hung."""
    store = DirectoryStore(tmp_path)
    names = ("frozen", "augmented")
    manifest = fake_run.manifest(status="failed", seeds=(524, 1), experiments=names)
    store.put(MANIFEST, manifest.model_dump_json().encode())
    failed = ExperimentResult(status="failed", error=HANG.why, attempts=2)
    fake_run.write_result(store, "augmented/seeds/1", failed)
    store.put(f"augmented/seeds/1/{HANGS}", HANG.model_dump_json().encode() + b"\n")
    return store


def test_a_hang_is_in_the_results_of_its_seed(store: DirectoryStore) -> None:
    results = json.loads(results_json(read_run(store)))
    jsonschema.validate(results, json.loads(schema_text()))
    frozen, augmented = results["experiments"]
    assert augmented["hangs"] == frozen["hangs"] == frozen["replicates"][1]["hangs"] == []
    assert augmented["replicates"][1]["hangs"] == [json.loads(HANG.model_dump_json())]


def test_the_page_says_which_rank_on_which_host_stood_where(store: DirectoryStore) -> None:
    text = render_page(read_run(store), {})
    assert text.count("<h2>Workers that hung</h2>") == 1
    assert "<b>augmented, seed 1, attempt 2.</b> Nothing moved for 30 min 00 s: rank 1 on" in text
    row = text.partition('<th scope="row">1</th>')[2].partition("</tr>")[0]
    assert "gpu02" in row
    assert "4711" in row
    assert "stopped by a signal" in row
    assert f"{STEPS}, has not come out" in text
    assert text.count("loop.py:99 _train\ntensorflow/execute.py:53 execute</code>") == 1
    assert "<p>Rank 0 on gpu01, another thread</p>" in text


def test_the_page_of_a_run_without_hangs_does_not_mention_them(store: DirectoryStore) -> None:
    store.delete(f"augmented/seeds/1/{HANGS}")
    assert "hung" not in render_page(read_run(store), {})


def test_a_report_with_a_hang_says_what_the_records_say(store: DirectoryStore) -> None:
    write_report(store)
    assert [one for one in verify(store) if one.verdict == "FAILS"] == []
    store.delete(f"augmented/seeds/1/{HANGS}")
    wrong = [one.claim for one in verify(store) if one.verdict == "FAILS"]
    assert len(wrong) == 2
    assert "results.json" in wrong[0]


def test_a_hang_that_cannot_be_read_is_named(store: DirectoryStore) -> None:
    store.put(f"frozen/{HANGS}", b'{"attempt": 1}\n')
    with pytest.raises(UserError, match=r"frozen/hangs.jsonl, line 1: damaged record"):
        read_run(store)


def test_hostile_names_are_text_and_long_ones_do_not_widen_the_page(
    store: DirectoryStore, browser: webdriver.Chrome, tmp_path: Path
) -> None:
    hostile = {"host": fake_run.HOSTILE, "process": fake_run.LONG, "doing": fake_run.HOSTILE}
    rank = RankRecord(rank=0, pid=1, stack=(fake_run.HOSTILE, fake_run.LONG), **hostile)
    hang = HangRecord(attempt=1, seconds=60.0, why=fake_run.HOSTILE + fake_run.LONG, ranks=(rank,))
    store.put(f"frozen/{HANGS}", hang.model_dump_json().encode() + b"\n")
    page = tmp_path / "page.html"
    page.write_text(render_page(read_run(store), {}))
    visit(browser, page.as_uri(), 390, "light")
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
