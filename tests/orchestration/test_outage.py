"""Storage, the terminal or the reader goes away in the middle of a run, on real Ray and S3."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from real_run import ROOT, TIMES, Command, epochs, result, results_json, without

from tlcluster.dataset.ingest import ingest
from tlcluster.records import EPOCHS
from tlcluster.storage.embedded import EmbeddedStore
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import ObjectMissing, Store

FLAGS = (
    "--weights", "none", "--checkpoint-seconds", "0", "--set", "*.global_batch=10",
    "--set", "*.patience=99", "--set", "augmented.epochs=6", "--experiments", "augmented",
)  # fmt: skip


class Switch:
    """Another address of an S3 server, which can be taken away and given back."""

    def __init__(self, endpoint: str) -> None:
        parts = urllib.parse.urlsplit(endpoint)
        self._target = (str(parts.hostname), int(parts.port or 80))
        self._open: set[socket.socket] = set()
        self._listening: socket.socket | None = None
        self.on()

    @property
    def environment(self) -> Mapping[str, str]:
        address = f"http://127.0.0.1:{self._port}"
        return {"AWS_ENDPOINT_URL": address, "AWS_ENDPOINT_URL_S3": address}

    _port = 0

    def on(self) -> None:
        """Answer, at the same port as before."""
        self._listening = socket.create_server(("127.0.0.1", self._port), backlog=128)
        self._port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def off(self) -> None:
        """Break all connections off and refuse new ones."""
        assert self._listening
        for one in (self._listening, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                server = socket.create_connection(self._target)
                self._open |= {client, server}
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def place(s3: EmbeddedStore, small_cinic: Path) -> Store:
    """A folder in S3 with 200 images a split under `data`, in four shards."""
    ingest(str(small_cinic), open_store(f"{s3.url}/outage/data"), rows_per_shard=50, processes=1)
    return open_store(f"{s3.url}/outage")


def arguments(place: Store, name: str, *flags: object) -> tuple[object, ...]:
    # An output for each run: none finds the features of another.
    output = f"{place.url}/{name}"
    return (
        "jobs/run_all.py", "--store", f"{place.url}/data", "--output", output, "--run-name",
        "run", *FLAGS, *flags,
    )  # fmt: skip


def finished_epochs(place: Store, name: str) -> int:
    try:
        return len(place.get(f"{name}/run/augmented/{EPOCHS}").splitlines())
    except ObjectMissing:
        return 0


def results(place: Store, name: str, folder: Path) -> Any:
    """What a run's report says, without what no two runs have in common."""
    (folder / "report").mkdir()
    (folder / "report" / "results.json").write_bytes(place.get(f"{name}/run/report/results.json"))
    whole = results_json(folder)
    return [
        without(whole[part], TIMES | {"store"})
        for part in ("dataset", "experiments", "comparisons")
    ]


@pytest.fixture(scope="module")
def undisturbed(place: Store, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("undisturbed")
    with Command(folder, *arguments(place, "undisturbed", "--cache", folder)) as command:
        assert command.ended() == 0, command.said()
    return results(place, "undisturbed", folder)


@pytest.mark.drill  # the decision is tested with fakes, the workers in test_train
@pytest.mark.cluster
def test_a_run_whose_storage_goes_away_waits_and_ends_with_the_same_results(
    s3: EmbeddedStore, place: Store, undisturbed: Any, tmp_path: Path
) -> None:
    switch = Switch(s3.endpoint)
    with Command(
        tmp_path, *arguments(place, "disturbed", "--cache", tmp_path, "--retries", "0"),
        environment=switch.environment,
    ) as command:  # fmt: skip
        command.until(lambda: finished_epochs(place, "disturbed") > 1)
        switch.off()
        # Then botocore's own retries are over.
        command.until(lambda: "storage away: " in command.said())
        switch.on()
        assert command.ended() == 0, command.said()
        assert "storage is back after " in command.said()
        assert "Traceback" not in command.said()
    assert results(place, "disturbed", tmp_path) == undisturbed


@pytest.mark.drill  # the decision is tested with fakes
@pytest.mark.cluster
def test_a_run_whose_storage_stays_away_ends_with_one_line_and_goes_on_later(
    s3: EmbeddedStore, place: Store, undisturbed: Any, tmp_path: Path
) -> None:
    switch = Switch(s3.endpoint)
    flags = ("--cache", tmp_path, "--storage-wait", "0.05")
    with Command(
        tmp_path, *arguments(place, "given-up", *flags), environment=switch.environment
    ) as command:
        command.until(lambda: finished_epochs(place, "given-up") > 1)
        switch.off()
        assert command.ended() == 1, command.said()
        assert "Traceback" not in command.said()
        last = command.stdout.read_text().splitlines()[-1]
        assert last.startswith("the report was not written, storage is away: s3://")
        assert last.endswith("; run the same command again with --run-name run to go on")
    switch.on()
    with Command(
        tmp_path, *arguments(place, "given-up", *flags), environment=switch.environment
    ) as command:
        assert command.ended() == 0, command.said()
    found = results(place, "given-up", tmp_path)
    assert [one["history"] for one in found[1]] == [one["history"] for one in undisturbed[1]]


@pytest.fixture
def long_run(small_cinic: Path, tmp_path: Path) -> list[str]:
    ingest(str(small_cinic), open_store(str(tmp_path / "data"), create=True), processes=1)
    return [
        sys.executable, "jobs/run_one.py", "frozen", "--store", str(tmp_path / "data"), "--output",
        str(tmp_path), "--run-name", "run", "--cache", str(tmp_path / "cache"), "--weights", "none",
        "--set", "frozen.epochs=9999", "--set", "frozen.patience=9999",
    ]  # fmt: skip


@pytest.mark.drill
@pytest.mark.cluster
def test_a_terminal_that_is_closed_leaves_a_report_that_says_interrupted(
    long_run: list[str], tmp_path: Path
) -> None:
    with Command(tmp_path, *long_run[1:]) as command:
        command.until(lambda: epochs(tmp_path / "run", "frozen"))
        assert command.send(signal.SIGHUP) == 129
    assert result(tmp_path / "run", "frozen").status == "interrupted"
    assert results_json(tmp_path / "run")["run"]["status"] == "interrupted"


@pytest.mark.drill
@pytest.mark.cluster
def test_a_reader_that_goes_away_leaves_a_report_that_says_interrupted(
    long_run: list[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        ["bash", "-c", '"$@" | head -n 1; exit ${PIPESTATUS[0]}', "bash", *long_run],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout) == (141, "frozen       running\n")
    assert "Traceback" not in done.stderr
    assert result(tmp_path / "run", "frozen").status == "interrupted"
    assert results_json(tmp_path / "run")["run"]["status"] == "interrupted"
