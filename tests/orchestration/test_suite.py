"""A run from its settings to its report: its folder, its manifest, and who may work on it."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_run import manifest as some_manifest

from tlcluster.errors import StoreUnavailable, UserError
from tlcluster.experiments import EXPERIMENTS
from tlcluster.orchestration import suite
from tlcluster.orchestration.board import Since
from tlcluster.orchestration.manifest import read_manifest, write_manifest
from tlcluster.orchestration.replicates import replicates
from tlcluster.orchestration.suite import (
    MANIFEST_LOCK,
    Conclusion,
    claimed,
    conclude,
    conclusion,
    held,
    opened_output,
    refuse_to_overwrite,
)
from tlcluster.records import RESULT, ExperimentResult, RunStatus, Status
from tlcluster.report.page import render_page
from tlcluster.report.runs import read_run
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store

FROZEN, AUGMENTED = replicates([EXPERIMENTS["frozen"], EXPERIMENTS["augmented"]], [524])


@pytest.fixture
def run(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "runs" / "first"), create=True)


@contextlib.contextmanager
def ordinary_account() -> Iterator[None]:
    """Let this process do what an account may that is not root."""
    account = os.geteuid()
    if account == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(account)


def ended(run: Store, **statuses: Status) -> None:
    """Leave results as workers or a driver would."""
    for name, status in statuses.items():
        error = "its worker died" if status == "failed" else None
        result = ExperimentResult(status=status, error=error)
        run.put(f"{name}/{RESULT}", result.model_dump_json().encode())


def refusal(output: Path | str) -> str:
    with pytest.raises(UserError) as caught, opened_output(str(output)):
        pass
    return str(caught.value)


def test_a_folder_with_other_files_is_not_taken_for_a_run(run: Store) -> None:
    run.put(MANIFEST_LOCK, b"")
    refuse_to_overwrite(run)
    run.put("report/index.html", b"mine")
    with pytest.raises(UserError, match=r"holds files and no run \('report/index.html' and 0 more"):
        refuse_to_overwrite(run)


def test_an_output_folder_is_made_and_stays_when_something_lies_in_it(tmp_path: Path) -> None:
    with opened_output(str(tmp_path / "a" / "b")) as store:
        store.put("kept", b"1")
    assert (tmp_path / "a" / "b" / "kept").read_bytes() == b"1"


def test_folders_that_stay_empty_are_gone_again(tmp_path: Path) -> None:
    with opened_output(str(tmp_path / "a" / "b")):
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_that_was_there_before_stays(tmp_path: Path) -> None:
    with opened_output(str(tmp_path)):
        pass
    assert tmp_path.is_dir()


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert refusal(file) == f"{file}: is a file; a store is a directory or s3://BUCKET/PREFIX"
    assert refusal(file / "runs") == (
        f"{file}/runs: not a directory; name a store that this account can use"
    )


def test_an_output_that_this_account_cannot_write_or_come_to_is_refused() -> None:
    with tempfile.TemporaryDirectory() as folder:
        closed = Path(folder, "closed")
        closed.mkdir(0o000)
        Path(folder).chmod(0o555)
        with ordinary_account():
            for output in (folder, f"{folder}/new", closed, closed / "new", closed / "a" / "b"):
                assert refusal(output) == (
                    f"{output}: permission denied; name a store that this account can use"
                )
        Path(folder).chmod(0o700)
        closed.chmod(0o700)


def test_an_experiment_of_a_run_is_one_driver_s_at_a_time(run: Store) -> None:
    with claimed(run, [FROZEN]):
        with pytest.raises(UserError) as caught, claimed(run, [AUGMENTED, FROZEN]):
            pass
        assert str(caught.value) == (
            f"{run.url}: another process is training frozen in this run; wait for it, stop it, or "
            "use another --run-name"
        )
        with claimed(run, [AUGMENTED]):
            pass
    with claimed(run, [AUGMENTED, FROZEN]):
        pass
    assert not Path(run.url, "frozen").exists()


def test_each_seed_of_an_experiment_may_have_a_driver_of_its_own(run: Store) -> None:
    first, second = replicates([EXPERIMENTS["frozen"]], [7, 8])
    with (
        claimed(run, [first]),
        claimed(run, [second]),
        pytest.raises(UserError, match="is training frozen/seeds/8 in this run"),
        claimed(run, [second]),
    ):
        pass
    assert not Path(run.url, "frozen").exists()


def test_in_s3_there_are_no_locks(s3_url: str) -> None:
    run = open_store(s3_url)
    with claimed(run, [FROZEN]), claimed(run, [FROZEN]), held(run, MANIFEST_LOCK, wait=True):
        pass
    assert run.list() == []


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        ({"frozen": "finished", "augmented": "finished"}, "finished"),
        ({"frozen": "finished", "augmented": "failed"}, "failed"),
        ({"frozen": "finished", "augmented": "interrupted"}, "interrupted"),
        ({"frozen": "failed", "augmented": "interrupted"}, "interrupted"),
        # Another driver is at work on these, or will be.
        ({"frozen": "finished", "augmented": "running"}, "running"),
        ({"frozen": "failed", "augmented": "running"}, "running"),
        ({"frozen": "finished"}, "running"),
    ],
)
def test_a_run_is_finished_when_every_experiment_is(
    run: Store, statuses: dict[str, Status], status: RunStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlcluster.report.write.write_report", lambda *_, **__: "report/index.html")
    begun = some_manifest(
        status="running", experiments=("frozen", "augmented"), finished=None, wall_seconds=10.0
    )
    write_manifest(run, begun)
    ended(run, **statuses)
    conclude(run, begun, seconds=5.0)
    manifest = read_manifest(run)
    assert manifest is not None
    assert manifest.status == status
    assert manifest.wall_seconds == 15.0
    assert (manifest.finished is None) == (status == "running")
    # The result of one that another driver trains will be written again.
    assert set(manifest.results_sha256) == {
        name for name, one in statuses.items() if one != "running"
    }


@pytest.mark.parametrize(
    ("second", "status"),
    [("finished", "finished"), ("failed", "failed"), ("interrupted", "interrupted")],
)
def test_a_run_is_finished_when_every_seed_is(
    run: Store, second: Status, status: RunStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlcluster.report.write.write_report", lambda *_, **__: "report/index.html")
    begun = some_manifest(
        status="running", experiments=("frozen",), finished=None, seeds=(524, 525)
    )
    write_manifest(run, begun)
    ended(run, frozen="finished")
    conclude(run, begun, seconds=5.0)
    # Another driver trains the other seed, or will.
    assert (read_manifest(run) or begun).status == "running"
    ended(run, **{"frozen/seeds/525": second})
    conclude(run, begun, seconds=5.0)
    manifest = read_manifest(run)
    assert manifest is not None
    assert manifest.status == status
    assert set(manifest.results_sha256) == {"frozen", "frozen/seeds/525"}


def test_a_run_that_its_budget_ended_says_so(run: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlcluster.report.write.write_report", lambda *_, **__: "report/index.html")
    begun = some_manifest(status="running", experiments=("frozen",), finished=None)
    write_manifest(run, begun)
    ended(run, frozen="interrupted")
    conclude(run, begun, seconds=5.0, budget="8")
    manifest = read_manifest(run)
    assert manifest is not None
    assert (manifest.status, manifest.budget_spent) == ("interrupted", "8")
    assert "Its budget, 8 worker-hours, was spent" in render_page(read_run(run), {})


def test_what_another_driver_added_to_the_run_stays_in_it(run: Store) -> None:
    """As two `jobs/run_one.py` at the same time: the first to begin is the first to end."""
    first = some_manifest(status="running", experiments=("frozen",), settings={"frozen.epochs": 1})
    write_manifest(run, first)
    second = first.model_copy(
        update={
            "experiments": ("frozen", "augmented"),
            "settings": {"frozen.epochs": 1, "augmented.epochs": 2},
        }
    )
    write_manifest(run, second)
    ended(run, frozen="finished")
    assert conclude(run, first, seconds=1.0) == "report/index.html"
    ended(run, augmented="finished")
    conclude(run, second, seconds=1.0)
    manifest = read_manifest(run)
    assert manifest is not None
    assert manifest.experiments == ("frozen", "augmented")
    assert manifest.settings == second.settings
    assert manifest.status == "finished"
    assert "augmented" in run.get("report/index.html").decode()


AWAY = (
    "the report was not written, storage is away: no route; run the same command again with "
    "--run-name first to go on"
)


def test_the_last_line_of_a_run_is_where_its_report_is(
    run: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "conclude", lambda *_: "report/index.html")
    driver: Any = SimpleNamespace(away=None, budget_spent=None)
    last = conclusion(driver, run, some_manifest(name="first"), 1.0)
    assert last == Conclusion(f"{run.url}/report/index.html", True)


def test_while_storage_is_away_no_report_is_tried_and_the_last_line_says_so(
    run: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(suite, "conclude")
    driver: Any = SimpleNamespace(away=Since(0.0, "no route"))
    assert conclusion(driver, run, some_manifest(name="first"), 1.0) == Conclusion(AWAY, False)


def test_if_storage_goes_away_while_the_report_is_written_the_last_line_says_so(
    run: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> str:
        raise StoreUnavailable("no route")

    monkeypatch.setattr(suite, "conclude", fails)
    driver: Any = SimpleNamespace(away=None, budget_spent=None)
    assert conclusion(driver, run, some_manifest(name="first"), 1.0) == Conclusion(AWAY, False)
