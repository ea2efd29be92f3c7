"""A run in a real MLflow server, as its own client finds it there."""

import math
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_run import (
    epoch_records,
    experiment_result,
    manifest,
    write_config,
    write_epochs,
    write_replicate,
    write_result,
    write_run,
)

from tlcluster.records import MANIFEST, REPORT, RunManifest
from tlcluster.storage.directory import DirectoryStore
from tlcluster.tracking.messages import Note, Order
from tlcluster.tracking.process import DEFAULTS
from tlcluster.tracking.sender import follow
from tlcluster.tracking.trackers import MLFLOW

ROOT = Path(__file__).parents[2]
PATHS = list(filter(None, [os.environ.get("PYTHONPATH")]))
SECONDS = 300.0
"""Only against a server that never starts."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `mlflow server` with SQLite; what is sent goes there."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
             "--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/db",
             "--artifacts-destination", str(folder / "artifacts")],
            stdout=log, stderr=log, cwd=folder, start_new_session=True,
            env={**os.environ, **DEFAULTS, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + SECONDS
        while not answers(f"{url}/health"):
            said = (folder / "log").read_text()
            assert process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", url)
            for name in DEFAULTS:
                if name.startswith("MLFLOW_"):  # the others would ask for another tracker
                    patch.setenv(name, DEFAULTS[name])
            yield url
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own server
            return True
    except OSError:
        return False


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path)


def a_run(name: str, **changes: object) -> RunManifest:
    dataset = manifest().dataset
    values = {
        "name": name,
        "status": "running",
        "experiments": ("frozen", "augmented"),
        "seeds": (524, 7),
        "settings": {"profile": "paper", "frozen.base": "vgg16", "frozen.learning_rate": 1e-3},
        "dataset": dataset.model_copy(update={"splits": {**dataset.splits, "test": 200}}),
        **changes,
    }
    return manifest(**values)


def sent(store: DirectoryStore, keys: frozenset[str] | None = None) -> Note:
    """Send as a driver's process does at the end, or, without keys, as the command does."""
    ended = threading.Event()
    ended.set()
    return follow(Order(module=MLFLOW.module, run=store.url, keys=keys), ended, print)


class Tracked:
    """The runs that a server has of one run."""

    def __init__(self, url: str, name: str) -> None:
        from mlflow import MlflowClient  # noqa: PLC0415 - takes a second

        self.client = MlflowClient(url)
        (experiment,) = self.client.search_experiments(filter_string="name = 'tlcluster'")
        found = self.client.search_runs(
            [experiment.experiment_id], f"tags.`tlcluster.run` = '{name}'"
        )
        self.runs = {run.info.run_name: run for run in found}
        assert len(self.runs) == len(found)

    def __getitem__(self, name: str) -> Any:
        return self.runs[name]

    def statuses(self) -> dict[str, str]:
        return {name: run.info.status for name, run in sorted(self.runs.items())}

    def history(self, name: str, metric: str) -> list[tuple[int, float]]:
        found = self.client.get_metric_history(self[name].info.run_id, metric)
        return [(one.step, one.value) for one in found]

    def artifacts(self, name: str) -> list[str]:
        found = self.client.list_artifacts(self[name].info.run_id, "report")
        return sorted(one.path for one in found)


def test_a_run_that_is_interrupted_and_continued_is_the_same_there_and_has_each_epoch_once(
    server: str, store: DirectoryStore
) -> None:
    of = a_run("whole")
    write_run(store, of, finished=[])
    write_replicate(store, of, "frozen", 524)
    history = epoch_records("augmented", 5)
    write_config(store, "augmented")
    write_epochs(store, "augmented", history[:3])
    write_result(store, "augmented", experiment_result("augmented", status="running"))
    # A driver that trains these two is killed, and its process sends the last of it.
    assert sent(store, frozenset({"frozen", "augmented"})).sent
    before = Tracked(server, "whole")
    assert before.statuses() == {
        "augmented, seed 524": "KILLED", "frozen, seed 524": "FINISHED", "whole": "RUNNING"
    }  # fmt: skip

    write_epochs(store, "augmented", history)
    write_result(store, "augmented", experiment_result("augmented"))
    write_result(
        store, "augmented/seeds/7", experiment_result("augmented", status="failed", error="no disk")
    )
    done = a_run("whole", status="failed", finished="2026-04-12T08:00:00Z")
    store.put(MANIFEST, done.model_dump_json().encode())
    for name in ("results.json", "index.html", "accuracy.png"):
        store.put(f"{REPORT}/{name}", name.encode())
    for _ in range(2):  # the second time, there is nothing left to send
        note = sent(store)
    after = Tracked(server, "whole")
    assert after.statuses() == {
        "augmented, seed 524": "FINISHED",
        "augmented, seed 7": "FAILED",
        "frozen, seed 524": "FINISHED",
        "whole": "FAILED",
    }
    for name, run in before.runs.items():
        assert after[name].info.run_id == run.info.run_id
    for metric in ("loss", "val_accuracy", "learning_rate", "images_per_second"):
        assert after.history("augmented, seed 524", metric) == [
            (one.epoch, getattr(one, metric)) for one in history
        ]
    assert len(after.history("frozen, seed 524", "loss")) == 24
    assert len(after.history("frozen, seed 524", "test_accuracy")) == 1

    run, frozen = after["whole"], after["frozen, seed 524"]
    for name, one in after.runs.items():
        assert one.data.tags.get("mlflow.parentRunId") == (
            None if name == "whole" else run.info.run_id
        )
    assert frozen.data.params["learning_rate"] == "0.001"
    assert (frozen.data.params["seed"], frozen.data.params["weights"]) == ("524", "imagenet")
    assert frozen.data.tags["tlcluster.index_sha256"] == of.dataset.index_sha256
    assert after["augmented, seed 7"].data.tags["tlcluster.error"] == "no disk"
    assert after.artifacts("whole") == [
        "report/accuracy.png", "report/index.html", "report/results.json"
    ]  # fmt: skip
    assert note.sent
    assert note.text.startswith(f"{server}/#/experiments/")
    assert note.text.endswith(run.info.run_id)


def test_the_loss_of_a_diverged_epoch_arrives(server: str, store: DirectoryStore) -> None:
    of = a_run("diverged", seeds=(524,))
    write_run(store, of, finished=[])
    first, second = epoch_records("frozen", 2)
    update = {"loss": math.nan, "val_loss": math.inf}
    write_epochs(store, "frozen", [first, second.model_copy(update=update)])
    for _ in range(2):
        assert sent(store).sent
    found = Tracked(server, "diverged")
    (_, one), (step, loss) = found.history("frozen", "loss")
    assert (one, step) == (first.loss, 2)
    assert math.isnan(loss)
    assert found.history("frozen", "val_loss")[1][1] > 1e300


def test_two_drivers_that_make_a_run_at_the_same_moment_agree_on_one(
    server: str, store: DirectoryStore
) -> None:
    of = a_run("array", seeds=(524,))
    write_run(store, of, finished=["frozen", "augmented"])
    assert sent(store, frozenset({"frozen"})).sent
    found = Tracked(server, "array")
    mine = found["array"]
    # The other's, which began to be made before ours and arrived after it.
    other = found.client.create_run(
        mine.info.experiment_id,
        start_time=mine.info.start_time - 5,
        tags={**mine.data.tags, "mlflow.runName": "other"},
    )
    assert sent(store).sent
    found = Tracked(server, "array")
    assert list(found.statuses()) == ["augmented", "frozen", "other"]
    for name in ("augmented", "frozen"):
        assert found[name].data.tags["mlflow.parentRunId"] == other.info.run_id


def track(store: DirectoryStore, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "jobs/track.py", "--run", store.url],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *PATHS]), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


def test_the_command_sends_a_run_that_had_no_tracker(server: str, store: DirectoryStore) -> None:
    write_run(store, a_run("late", seeds=(524,), status="finished"))
    done = track(store)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"MLflow: {server}/#/experiments/")
    assert set(Tracked(server, "late").statuses().values()) == {"FINISHED"}


def test_a_server_that_is_away_is_one_line_without_the_password(store: DirectoryStore) -> None:
    write_run(store, a_run("away", seeds=(524,), status="finished"))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        done = track(store, MLFLOW_TRACKING_URI=f"http://user:secret@{address}")
    assert (done.returncode, done.stderr) == (1, "")
    (line,) = done.stdout.splitlines()
    assert line.startswith("MLflow: not everything was sent (")
    assert "refused" in line
    assert line.endswith(f"); `python jobs/track.py --run {store.url}` sends the rest")
    assert "secret" not in line
