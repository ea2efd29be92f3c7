"""A run whose workers hang twice, on real Ray: stopped, and missing from a collective."""

import os
import signal
import socket
from pathlib import Path

import pytest
from real_run import ROOT, Command, epochs, gone, result, results_json

from tlcluster.dataset.ingest import ingest
from tlcluster.storage.open import open_store

NEVER_VALIDATES = """
import os, threading

def hook(frame, event, _):
    if (
        event == "call"
        and frame.f_code.co_name == "_validate"
        and '"index": 1' in os.environ.get("TF_CONFIG", "")
        and os.path.exists({mark!r})
    ):
        threading.Event().wait()

threading.setprofile(hook)
"""
"""`sitecustomize.py` of every process: the second worker does not begin to validate once a file is
there."""


@pytest.mark.drill  # test_hanging has the workers, test_decide the decisions
@pytest.mark.cluster
def test_workers_that_hang_are_explained_started_again_and_fail_the_second_time(
    small_cinic: Path, tmp_path: Path
) -> None:
    ingest(str(small_cinic), open_store(str(tmp_path / "data"), create=True), processes=1)
    hooks, mark, run = tmp_path / "hooks", tmp_path / "hang", tmp_path / "runs" / "hangs"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(NEVER_VALIDATES.format(mark=str(mark)))
    with Command(
        tmp_path, "jobs/run_all.py", "--experiments", "frozen", "--workers", "2",
        "--store", tmp_path / "data", "--output", run.parent, "--run-name", run.name,
        "--cache", tmp_path / "cache", "--weights", "none", "--stall", "1",
        "--set", "*.epochs=9999", "--set", "*.patience=9999", "--checkpoint-seconds", "0",
        environment={"PYTHONPATH": f"{hooks}:{ROOT}"},
    ) as command:  # fmt: skip
        command.until(lambda: epochs(run, "frozen"))
        workers = command.workers()
        assert len(workers) == 2
        os.kill(workers[0].pid, signal.SIGSTOP)
        command.until(lambda: result(run, "frozen").attempts == 2)
        assert gone(set(workers))
        before = len(epochs(run, "frozen"))
        command.until(lambda: len(epochs(run, "frozen")) > before)
        mark.touch()
        assert command.ended() == 1, command.said()
        said = command.said()
    assert "Traceback" not in said
    (experiment,) = results_json(run)["experiments"]
    assert (experiment["status"], experiment["attempts"]) == ("failed", 2)
    stopped, missed = experiment["hangs"]
    assert [stopped["attempt"], missed["attempt"]] == [1, 2]
    assert experiment["error"] == f"no progress for 1 min (--stall): {missed['why']}"

    host = socket.gethostname()
    one, other = sorted(stopped["ranks"], key=lambda rank: rank["pid"] != workers[0].pid)
    assert [one["pid"], other["pid"]] == [worker.pid for worker in workers]
    assert stopped["why"].startswith(
        f"rank {one['rank']} on {host} (process {one['pid']}) is stopped by a signal"
    )
    assert (one["process"], other["process"]) == ("stopped by a signal", "sleeping")
    assert one["doing"]
    assert other["stack"]

    first, second = missed["ranks"]
    assert first["inside"]
    assert first["exchange"].startswith("validation of epoch ")
    assert not second["inside"]
    assert any(frame.endswith(" _validate") for frame in second["stack"])
    assert missed["why"].startswith(f"rank 0 on {host} waits in the {first['exchange']} for rank 1")

    page = (run / "report" / "index.html").read_text()
    for hang in (stopped, missed):
        assert f"frozen hangs: {hang['why']}\n" in said
    assert page.count("Where the workers of frozen, attempt ") == 2 * 2
