"""A comparison's settings, costs and files: the numbers are those of each run's own report."""

import csv
import io
import json
import shutil
from pathlib import Path

import fake_run
import pytest
from browsing import Reader
from many_runs import gathered, write

from jobs.compare import main
from tlcluster import records
from tlcluster.comparison.apart import settings_apart
from tlcluster.comparison.gather import gather
from tlcluster.comparison.pairs import pairs
from tlcluster.comparison.places import places
from tlcluster.comparison.results import Comparison, comparison
from tlcluster.comparison.rows import all_rows, comparison_csv, worker_seconds
from tlcluster.comparison.write import write_comparison
from tlcluster.errors import UserError
from tlcluster.report.runs import read_run
from tlcluster.report.tables import json_text, summary_csv
from tlcluster.storage.directory import DirectoryStore


def test_settings_that_differ_are_shown_with_their_values_and_the_others_are_named(
    runs: Path,
) -> None:
    of_runs, frozen, finetuned = settings_apart(gathered(runs, "base", "wide").entries)
    unknown = ("workers", "feature_cache", "scale_batch")
    assert of_runs.differ == ("profile", *unknown, "threads")
    assert of_runs.values["wide"]["profile"] == "wide.toml"
    assert [of_runs.values[run]["threads"] for run in ("base", "wide")] == [None, 8]
    assert {"seeds", "data set", "index, sha256", "weights of vgg16", "ray, version"} <= {
        *of_runs.same
    }
    assert (frozen.experiment, frozen.differ) == ("frozen", ("dense units",))
    assert frozen.values == {"base": {"dense units": 512}, "wide": {"dense units": 1024}}
    assert (finetuned.differ, len(finetuned.same)) == ((), len(frozen.same) + 1)


def test_true_and_one_are_two_settings(tmp_path: Path) -> None:
    write(tmp_path / "a", settings={"x": True})
    write(tmp_path / "b", settings={"x": 1})
    (of_runs, *_) = settings_apart(gather(places([str(tmp_path)])).entries)
    assert of_runs.differ == ("x",)


def test_worker_seconds_are_times_times_workers_and_unknown_without_workers(
    runs: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs / "seeds", tmp_path / "seeds")
    store = DirectoryStore(tmp_path / "seeds")
    for seed, workers, seconds in ((524, 2, 100.0), (1, 1, 50.0), (2, 4, 10.0)):
        there = [{"rank": rank, "host": "h", "device": "CPU"} for rank in range(workers)]
        result = fake_run.experiment_result("frozen", workers=there, wall_seconds=seconds)
        fake_run.write_result(store, records.replicate_folder("frozen", seed, 524), result)
    assert worker_seconds(read_run(store).experiments[0]) == 290
    none = fake_run.experiment_result("frozen", workers=(), wall_seconds=10.0)
    fake_run.write_result(store, "frozen/seeds/2", none)
    assert worker_seconds(read_run(store).experiments[0]) is None
    store.put("frozen/seeds/2/result.json", b"torn")
    assert worker_seconds(read_run(store).experiments[0]) is None


def test_the_table_has_the_numbers_of_each_runs_own_summary(runs: Path) -> None:
    found = gathered(runs, "")
    ours = list(csv.DictReader(io.StringIO(comparison_csv(all_rows(found)))))
    means = [float(row["accuracy_mean"]) for row in ours]
    assert means == sorted(means, reverse=True)
    for entry in found.entries:
        for row in csv.DictReader(io.StringIO(summary_csv(entry.run))):
            (same,) = (
                one
                for one in ours
                if (one["run"], one["experiment"]) == (entry.label, row["experiment"])
            )
            assert {name: same[name] for name in row} == row


def test_the_file_has_every_number_and_is_read_by_its_model(runs: Path, tmp_path: Path) -> None:
    page = write_comparison([str(runs)], str(tmp_path / "out"), "compare runs")
    assert page == f"{tmp_path}/out/index.html"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("comparison.csv", "comparison.json", "index.html")
    ]
    text = (tmp_path / "out/comparison.json").read_text()
    found = gathered(runs, "")
    assert text == json_text(comparison(found, "compare runs"))
    assert Comparison.model_validate_json(text) == comparison(found, "compare runs")
    pair = json.loads(text)["pairs"][0]
    assert (pair["experiment"], pair["a"], pair["b"]) == ("frozen", "wide", "base")
    assert pair["p_value"] == pairs(found)[0].contrast.p_value
    # The same runs make the same bytes, in place of those of before.
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    write_comparison([str(runs)], str(tmp_path / "out"), "compare runs")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_the_page_of_a_report_is_not_replaced(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("a report")
    with pytest.raises(UserError, match=r"^--to .*: has an index\.html that is no comparison's"):
        write_comparison([str(runs)], str(tmp_path), "")
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_the_command_prints_where_the_page_is(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert main([str(runs / "base"), str(runs / "wide"), "--to", out]) == 0
    assert capsys.readouterr().out == f"{out}/index.html\n"
    text = Reader((tmp_path / "out/index.html").read_text()).text
    assert f"python jobs/compare.py {runs}/base {runs}/wide --to {out}" in text
